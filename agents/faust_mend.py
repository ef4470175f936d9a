"""Two mends to Faust's consumer, applied on import.

Faust lets a broker hold a fetch back for 1,500 ms while there is nothing to send, and cannot be told otherwise. A partition
whose records arrive meanwhile is not in the request that is open, so its readings wait for that long: 580 ms at the median
were measured from device to store at 50,000 readings/s. Here a broker answers after FETCH_WAIT_MS at the latest.

Its consumer runs in a thread that the interpreter waits for, and that asks a broker which is gone for ever: a worker whose
broker had died before it was told to stop did not end. Here the thread ends with the process.
"""

from __future__ import annotations

from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from mode.threads import WorkerThread

FETCH_WAIT_MS = 25
"""An idle worker asks 40 times a second, which costs it some 2 % of a core."""

_wait_ms = FETCH_WAIT_MS
_wait_bytes = 1

_create_worker_consumer = AIOKafkaConsumerThread._create_worker_consumer


def _create_with_short_fetches(thread: AIOKafkaConsumerThread, transport: Any) -> Any:
    consumer = _create_worker_consumer(thread, transport)
    consumer._fetch_max_wait_ms = _wait_ms
    consumer._fetch_min_bytes = _wait_bytes
    return consumer


def let_fetches_wait(ms: int, bytes: int) -> None:
    """Let a broker hold fetches of this process back for so long, or until there is so much, from the next consumer on."""
    global _wait_ms, _wait_bytes
    _wait_ms, _wait_bytes = ms, bytes


class _DaemonThread(WorkerThread):  # type: ignore[misc]
    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True


AIOKafkaConsumerThread._create_worker_consumer = _create_with_short_fetches
AIOKafkaConsumerThread.Worker = _DaemonThread
