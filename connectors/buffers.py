"""What intake holds between a peer and Kafka: a buffer for each partition, and the room they all share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from connectors.receipt import Receipt
from isotherm.pack import NO_SEQ, Attribute

BYTES_PER_READING = 40
"""What a reading in flight weighs; texts and rejects are weighed in readings."""

MAX_ATTRIBUTE_BYTES = 256 * 1024
"""Texts that travel in one pack."""


def weight(size: int) -> int:
    """Return how many readings ``size`` bytes of text weigh."""
    return 1 + size // BYTES_PER_READING


@dataclass(frozen=True, slots=True)
class Columns:
    """Accepted readings: number of the series, time, value and, if any has one, sequence number; shape (n,) each."""

    codes: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    seq: NDArray[np.uint64] | None

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Columns:
        """Return some of the rows."""
        return Columns(self.codes[rows], self.time[rows], self.value[rows], None if self.seq is None else self.seq[rows])


class Buffer:
    """Readings and attributes of one partition that wait for their pack."""

    def __init__(self) -> None:
        self.count = 0
        self.attributes: list[Attribute] = []
        self._parts: list[Columns] = []
        self._receipts: list[Receipt] = []

    def __len__(self) -> int:
        return self.count + len(self.attributes)

    def add(self, part: Columns, receipt: Receipt) -> None:
        """Put readings in."""
        self._parts.append(part)
        self.count += len(part)
        self._expect(receipt)

    def add_attribute(self, attribute: Attribute, receipt: Receipt) -> None:
        """Put a string value in."""
        self.attributes.append(attribute)
        self._expect(receipt)

    def settle(self) -> None:
        """Tell every sender that Kafka has it all."""
        for receipt in self._receipts:
            receipt.settle()

    def cut(self, size: int) -> Iterator[Columns]:
        """Yield the readings in runs of at most ``size``."""
        if not self._parts:
            return
        columns = self._parts[0] if len(self._parts) == 1 else _concatenated(self._parts)
        for at in range(0, self.count, size):
            yield columns.rows(slice(at, at + size))

    def cut_attributes(self) -> Iterator[list[Attribute]]:
        """Yield the attributes in runs of at most MAX_ATTRIBUTE_BYTES characters."""
        run: list[Attribute] = []
        size = 0
        for attribute in self.attributes:
            length = len(attribute.series) + len(attribute.text)
            if run and size + length > MAX_ATTRIBUTE_BYTES:
                yield run
                run, size = [], 0
            run.append(attribute)
            size += length
        if run:
            yield run

    def _expect(self, receipt: Receipt) -> None:
        if not self._receipts or self._receipts[-1] is not receipt:
            self._receipts.append(receipt)
            receipt.expect()


def _concatenated(parts: list[Columns]) -> Columns:
    seq = None
    if any(part.seq is not None for part in parts):
        none = [np.full(len(part), NO_SEQ, dtype=np.uint64) if part.seq is None else part.seq for part in parts]
        seq = np.concatenate(none)
    return Columns(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.value for part in parts]),
        seq,
    )


class Room:
    """How much may be in flight, in readings: taken when they come in, given back when Kafka has them."""

    def __init__(self, size: int, gauge: Gauge) -> None:
        self.taken = 0
        self._size = size
        self._gauge = gauge
        self._closed = False
        self._empty = asyncio.Event()
        self._waiting: dict[Callable[[], None], None] = {}  # in their order
        self._update()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def is_full(self) -> bool:
        """Whether nothing may come in now."""
        return self._closed or self.taken >= self._size

    def when_given(self, then: Callable[[], None]) -> None:
        """Have a function called, once, when something was given back and there is room."""
        self._waiting[then] = None

    async def given(self) -> None:
        """Return when something was given back and there is room."""
        given = asyncio.Event()
        self._waiting[given.set] = None
        try:
            await given.wait()
        finally:
            self._waiting.pop(given.set, None)

    async def emptied(self) -> None:
        """Return when nothing is in flight."""
        await self._empty.wait()

    def take(self, count: int) -> None:
        """Something comes in."""
        self.taken += count
        self._update()

    def give(self, count: int) -> None:
        """Kafka has it."""
        self.taken -= count
        self._update()
        self._wake()

    def close(self) -> None:
        """Let nothing in."""
        self._closed = True

    def open(self) -> None:
        """Let something in again."""
        self._closed = False
        self._wake()

    def _wake(self) -> None:
        if self._waiting and not self.is_full:
            loop, waiting, self._waiting = asyncio.get_running_loop(), self._waiting, {}
            for then in waiting:
                loop.call_soon(then)

    def _update(self) -> None:
        self._gauge.set(self.taken)
        if self.taken:
            self._empty.clear()
        else:
            self._empty.set()
