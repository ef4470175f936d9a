"""Load: many readings of many devices over one TCP connection, as fast as the server acknowledges them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

CHUNK_BYTES = 256 * 1024
MOST_UNACKNOWLEDGED = 400_000
"""Readings on their way: enough to keep every process busy, few enough to show the server's pace and not the socket's."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run sent.

    Attributes:
        readings: Sent and acknowledged.
        seconds: From the first byte to the last acknowledgement.
        payload_bytes: Of all lines.
    """

    readings: int
    seconds: float
    payload_bytes: int


def lines(readings: int, devices: int, end: float) -> Iterator[bytes]:
    """Yield NDJSON in chunks: reading i is of device i mod ``devices``, each at 1 Hz up to ``end``, s since the epoch."""
    rounds = -(-readings // devices)
    chunk: list[bytes] = []
    size = 0
    for i in range(readings):
        turn, device = divmod(i, devices)
        line = b'{"n":"load-%d/temperature","u":"Cel","v":%d.5,"t":%.3f}\n' % (device, 15 + turn % 10, end - rounds + turn)
        chunk.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


async def send(host: str, port: int, chunks: list[bytes], progress: Callable[[int], None]) -> Sent:
    """Send chunks over one connection and wait until all is acknowledged.

    Raises:
        ConnectionError: the server closed the connection or refused a reading.
    """
    ends = list(accumulate(chunk.count(b"\n") for chunk in chunks))
    total = ends[-1]
    reader, writer = await asyncio.open_connection(host, port)
    room = asyncio.Semaphore(MOST_UNACKNOWLEDGED * len(ends) // total + 1)  # chunks that may be on their way

    async def hear() -> None:
        acknowledged = freed = 0
        while acknowledged < total:
            answer = json.loads(await reader.readline() or b'{"error":"closed"}')
            if "error" in answer:
                raise ConnectionError(f"the server answered {answer}")
            acknowledged = answer["ack"]
            progress(acknowledged)
            while freed < len(ends) and ends[freed] <= acknowledged:
                freed += 1
                room.release()

    began = time.monotonic()
    writer.write(b'{"hello":{"ack":true}}\n')
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hear(), name="acknowledgements")
        for chunk in chunks:
            await room.acquire()
            writer.write(chunk)
            await writer.drain()
    seconds = time.monotonic() - began
    writer.close()
    return Sent(total, seconds, sum(map(len, chunks)))
