"""``isotherm topics``: the topics of the log, made before anything runs."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import print_json, print_table, run
from isotherm.errors import Unavailable
from isotherm.limits import DAY, HOUR, SECOND
from isotherm.settings import Settings

if TYPE_CHECKING:
    from isotherm.kafka import TopicState

LOOK_SECONDS = 0.5


def topics(
    wait: Annotated[float, typer.Option(help="Seconds to wait for Kafka and all of its brokers to come.", min=0)] = 0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create the Kafka topics that are missing, and list them with their replicas.

    Each has ISOTHERM_PARTITIONS partitions and ISOTHERM_REPLICATION replicas. Where there are replicas, all but one of them
    must have a record before it is acknowledged (min.insync.replicas). What exists is not changed.
    """
    settings = Settings.load(data_dir=data_dir)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says at each attempt what we say at the end
    made = run(settings, _ensured(settings, wait))
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "partitions": one.partitions,
                    "replicas": one.replicas,
                    "in_sync": one.in_sync,
                    "min_in_sync": one.min_in_sync,
                    "retention_seconds": None if one.retention is None else one.retention // SECOND,
                }
                for one in made
            ]
        )
    else:
        names = ("topic", "partitions", "replicas", "in sync", "needed in sync", "keeps for")
        rows = [
            (one.name, *map(str, (one.partitions, one.replicas, one.in_sync, one.min_in_sync)), _kept(one)) for one in made
        ]
        print_table(names, rows)
    for one in made:
        if one.replicas < settings.replication:
            print(
                f"isotherm: topic {one.name} has {one.replicas} of {settings.replication} replicas (ISOTHERM_REPLICATION); "
                "Kafka's kafka-reassign-partitions.sh adds them",
                file=sys.stderr,
            )


async def _ensured(settings: Settings, wait: float) -> list[TopicState]:
    """Create what is missing once there are enough brokers, and return what there is."""
    from isotherm import kafka

    deadline = time.monotonic() + wait
    while True:
        try:
            brokers = await kafka.count_brokers(settings)
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
        else:
            if brokers >= settings.replication:
                break
            if time.monotonic() >= deadline:
                raise kafka.too_few_brokers(settings, brokers)
        await asyncio.sleep(LOOK_SECONDS)
    await kafka.ensure_topics(settings)
    return await kafka.describe_topics(settings)


def _kept(topic: TopicState) -> str:
    if topic.retention is None:
        return "ever"
    return f"{topic.retention / DAY:g} d" if topic.retention >= DAY else f"{topic.retention / HOUR:g} h"
