"""What a fleet needs in pods: the estimate behind ``isotherm capacity --protocol``.

    cores of a process = idle + readings/s × µs          pods: as many as keep a process below 1 − headroom of a core
    disk of the log    = readings/s × bytes × retention × replicas

Each reading is taken to be a message of its own, of a device with a connection of its own: the dearest way. What costs are
from:

    | figure                | from                                                                                         |
    |-----------------------|----------------------------------------------------------------------------------------------|
    | TCP, MQTT connector,  | two runs of a local stack, one reading a message where senders kept up: 2,047 and 7,918      |
    | worker, analytic,     | readings/s, the four protocols in equal parts; the line through both (docs/capacity.md).     |
    | mosquitto             | Worker and analytic cost 7.3 and 3.2 µs at 50,000 readings/s, too (decision 49)              |
    | HTTP, CoAP connector  | the first run alone: in the second one their senders put several readings into a message     |
    | Kafka                 | the second run, against Apache Kafka 4: one broker, one replica                              |
    | store                 | decision 35: 100,000 series, a reading or two of each in a commit, the dearest that was found |
    | others' messages      | decision 32: an MQTT message that is another connector's costs 8.1 µs where its own cost 18.1 |
    | bytes a connection    | table above the decisions: `isotherm bench ingest`, 10,000 quiet connections                 |
    | bytes of the log      | the length of a pack, which a test compares                                                  |
    | memory of the store   | isotherm.store.capacity                                                                      |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from isotherm.limits import SECOND
from isotherm.store.capacity import capacity
from isotherm.topics import READINGS


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process costs: cores without load, CPU µs a reading, bytes of memory, and of each connection."""

    idle: float
    us: float
    memory: int
    connection: int = 0


MB = 1_000_000

CONNECTORS = {
    "tcp": Cost(0.069, 35, 126 * MB, 3_956),
    "http": Cost(0, 255, 140 * MB, 16_440),
    "mqtt": Cost(0.047, 40, 128 * MB),
    "coap": Cost(0, 68, 132 * MB),
}
WORKER = Cost(0.071, 7.6, 130 * MB)
ANALYTIC = Cost(0.072, 3.2, 60 * MB)
"""Presence, with the host that starts it; alarms cost less (decision 49), and are taken for the same."""

ANALYTICS = 2
"""Presence and alarms."""

HOST_MEMORY = 170 * MB
MOSQUITTO = Cost(0.012, 14.5, 13 * MB)
KAFKA = Cost(0, 9.5, 1_500 * MB)
"""Its memory is no measured figure: the 1 GB of heap that Kafka's own script gives it, and what the JVM takes beside it."""

STORE_US = 10.6

OTHERS_SHARE = 8.1 / 18.1
"""What a message costs an MQTT connector whose it is not, of what it costs the one whose it is."""

MOSQUITTO_COPY = (17.0 - 12.5) / 12.5
"""What each further connector adds to mosquitto's cost of a message (decision 32)."""

CONNECTIONS = 50_000
"""Of one connector: the default of ISOTHERM_MAX_CONNECTIONS."""

PACKS_A_SECOND = 50
"""That a connector sends of a partition: they leave 20 ms apart (ISOTHERM_LINGER_MS)."""

RECORD_BYTES = 1_120
"""A pack without readings, and what Kafka adds to a record."""

READING_BYTES = 56
"""A reading in a pack, each of another series."""

STORE_ROOM = 2
"""Memory of the store beyond its content, while its append-only file is rewritten."""

MOST_PODS = 1_000
MOST_MQTT_CONNECTORS = 8
"""More of them, each of which is sent every message, cost more than they carry."""

LEAST_CPU = 0.1


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is to be carried.

    Attributes:
        devices: How many, each with a connection.
        rate: How often each sends, Hz.
        metrics: Readings of a device each time.
        protocol: By which one: of CONNECTORS.
    """

    devices: int
    rate: float
    metrics: int = 1
    protocol: str = "tcp"

    @property
    def readings(self) -> float:
        """Readings a second."""
        return self.devices * self.rate * self.metrics


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of pods.

    Attributes:
        name: Which part of the platform.
        pods: How many.
        cpu: Cores of each.
        memory: Bytes of each.
        disk: Bytes of each.
        problem: Why it cannot carry the load, or empty.
    """

    name: str
    pods: int
    cpu: float
    memory: int
    disk: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All of them, and how many partitions the topics need."""

    parts: list[Part]
    partitions: int

    @property
    def cores(self) -> float:
        """Cores of all pods."""
        return sum(part.pods * part.cpu for part in self.parts)

    @property
    def memory(self) -> int:
        """Bytes of memory of all pods."""
        return sum(part.pods * part.memory for part in self.parts)


def plan(fleet: Fleet, *, headroom: float = 0.5, partitions: int = 8, replication: int = 3) -> Plan:
    """Return what a fleet needs.

    Args:
        fleet: The fleet.
        headroom: Share of each core that is left for peaks, and for the pods that take over when one is away, in [0, 1).
        partitions: Of the topics; more where there have to be more workers.
        replication: Of the topics, and the brokers there are at least.

    >>> [(part.name, part.pods) for part in plan(Fleet(100, 1.0)).parts]
    [('tcp connector', 2), ('worker', 2), ('analytics', 2), ('kafka', 3), ('store', 1)]
    """
    rate, most = fleet.readings, 1 - headroom
    connector = _connector(fleet, most)
    worker = _pods("worker", WORKER, rate, most)
    analytics = _analytics(rate, most)
    parts = [connector, worker, analytics]
    if fleet.protocol == "mqtt":
        parts.insert(1, _mosquitto(rate, connector.pods, most))
    partitions = max(partitions, worker.pods, analytics.pods)
    kafka = _kafka(rate, connector.pods * partitions, most, replication)
    return Plan([*parts, kafka, _store(fleet, most)], partitions)


def _pods(name: str, cost: Cost, rate: float, most: float, least: int = 2) -> Part:
    """Return as many pods as keep each below ``most`` of a core."""
    room = most - cost.idle
    pods = max(least, math.ceil(rate * cost.us / 1e6 / room)) if room > 0 else MOST_PODS
    return Part(name, pods, _cpu((cost.idle + rate * cost.us / 1e6 / pods) / most), cost.memory)


def _cpu(cores: float) -> float:
    return max(LEAST_CPU, math.ceil(cores * 20) / 20)


def _connector(fleet: Fleet, most: float) -> Part:
    cost, name = CONNECTORS[fleet.protocol], f"{fleet.protocol} connector"
    if fleet.protocol != "mqtt":
        part = _pods(name, cost, fleet.readings, most, max(2, math.ceil(fleet.devices / CONNECTIONS)))
        return Part(name, part.pods, part.cpu, cost.memory + math.ceil(fleet.devices / part.pods) * cost.connection)
    others = OTHERS_SHARE * cost.us
    room = (most - cost.idle) * 1e6 / fleet.readings - others  # µs a message that each may spend on its own ones
    pods = max(2, math.ceil((cost.us - others) / room)) if room > 0 else 0
    if not 0 < pods <= MOST_MQTT_CONNECTORS:
        return Part(
            name, 2, 1.0, cost.memory, problem="each connector is sent every message: divide the devices among brokers"
        )
    used = cost.idle + fleet.readings * (others + (cost.us - others) / pods) / 1e6
    return Part(name, pods, _cpu(used / most), cost.memory)


def _mosquitto(rate: float, connectors: int, most: float) -> Part:
    cores = MOSQUITTO.idle + rate * MOSQUITTO.us * (1 + MOSQUITTO_COPY * (connectors - 1)) / 1e6
    problem = "mosquitto uses one core: take a broker that is a cluster" if cores > most else ""
    return Part("mosquitto", 1, _cpu(cores / most), MOSQUITTO.memory, problem=problem)


def _analytics(rate: float, most: float) -> Part:
    one = _pods("analytics", ANALYTIC, rate, most)
    used = ANALYTICS * (ANALYTIC.idle + rate * ANALYTIC.us / 1e6 / one.pods)
    return Part("analytics", one.pods, _cpu(used / most), HOST_MEMORY + ANALYTICS * ANALYTIC.memory)


def record_bytes(readings_a_pack: float) -> float:
    """Return what a reading takes on the log.

    >>> round(record_bytes(1)), round(record_bytes(1000))
    (1176, 57)
    """
    return RECORD_BYTES / max(1.0, readings_a_pack) + READING_BYTES


def _kafka(rate: float, streams: int, most: float, replication: int) -> Part:
    cores = (KAFKA.idle + rate * KAFKA.us / 1e6) * replication  # each replica is taken to cost what the first does
    kept = rate * record_bytes(rate / streams / PACKS_A_SECOND) * READINGS.retention / SECOND * replication
    brokers = replication
    return Part("kafka", brokers, _cpu(cores / brokers / most), KAFKA.memory, math.ceil(kept / brokers))


def _store(fleet: Fleet, most: float) -> Part:
    series = fleet.devices * fleet.metrics
    cores = fleet.readings * STORE_US / 1e6
    primaries = math.ceil(cores / most)
    primaries = max(3, primaries) if primaries > 1 else 1  # a cluster has three at least
    content = sum(term.bytes for term in capacity(series, fleet.rate, fleet.devices))
    return Part("store", primaries, _cpu(cores / primaries / most), math.ceil(STORE_ROOM * content / primaries))
