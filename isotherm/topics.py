"""Kafka's topics and the one rule of sharding.

A partition is the shard of everything: readings of a device stay in order, and the Redis keys of a partition share a
hash tag, so one script can write them atomically.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from isotherm.limits import DAY


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and how long it keeps its records, in µs."""

    name: str
    retention: int


READINGS = Topic("readings", 7 * DAY)
REJECTS = Topic("rejects", 7 * DAY)
EVENTS = Topic("events", 30 * DAY)
COMMANDS = Topic("commands", 1 * DAY)
REPLIES = Topic("replies", 1 * DAY)

ALL = (READINGS, REJECTS, EVENTS, COMMANDS, REPLIES)
TOPICS = {topic.name: topic for topic in ALL}


def partition_of(device: str, partitions: int) -> int:
    """Return the partition of a device, in [0, partitions).

    murmur2 of the key's bytes, as Kafka's default partitioner does it, so that any client that keys by device agrees.
    """
    return int((murmur2(device.encode()) & 0x7FFFFFFF) % partitions)
