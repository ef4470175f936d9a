"""A stream of readings over any number of connections, each reading once. No I/O.

The platform says with each event how far it has told (its id); a connection that is lost is followed by one that shows the
last id. An event that was cut is not used, and the id moves on when all readings of an event have been handed over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import httpx2
import msgspec

from isotherm.client.errors import ClientError, NotUnderstood, RateLimited, Unavailable
from isotherm.client.exchange import Answer, Request, backoff, decoded, got
from isotherm.client.model import Reading

EVENT_STREAM = "text/event-stream"

SILENCE_SECONDS = 45.0
"""A connection on which nothing comes for so long is lost: the platform says something every 15 s."""

MAX_EVENT_BYTES = 256 * 2**20
"""What came during an interruption comes as one event."""


class _Points(msgspec.Struct):
    time: list[int]
    value: list[float | None]


class Following:
    """What is known of a stream between its connections.

    Attributes:
        position: Up to where all readings were handed over; empty before the first connection.
    """

    def __init__(self, series: Sequence[str], after: str, patience: float) -> None:
        """Prepare.

        Args:
            series: ``device/metric``.
            after: A position to go on from.
            patience: How long the platform may be away, s.
        """
        self.position = after
        self._series = series
        self._patience = patience
        self._failures = 0
        self._heard_at = time.monotonic()

    def request(self) -> Request:
        """Return what the next connection begins with."""
        resumed = {"last-event-id": self.position} if self.position else {}
        return got("/stream", *(("series", name) for name in self._series), accept=EVENT_STREAM, **resumed)

    def opened(self, answer: Answer) -> None:
        """Take the head of a good answer.

        Raises:
            NotUnderstood: it is no stream.
        """
        kind = answer.headers.get("content-type", "")
        if not kind.startswith(EVENT_STREAM):
            raise NotUnderstood(f"the answer is {kind or 'of no type'}, expected {EVENT_STREAM}")

    def readings(self, event: httpx2.ServerSentEvent) -> Iterator[Reading]:
        """Yield the readings of an event, and then move on."""
        self._failures = 0
        if event.event == "readings":
            for series, points in decoded(event.data.encode(), dict[str, _Points]).items():
                for at, value in zip(points.time, points.value, strict=True):
                    yield Reading(series, at, math.nan if value is None else value)
        self._heard_at = time.monotonic()
        self.position = event.id or self.position

    def lost(self, error: ClientError | None) -> float:
        """Return how long to wait before the next connection, s; without an error it was ended, as each is after 15 min.

        Raises:
            ClientError: it is no use, or has been away for too long.
        """
        if error is not None and not isinstance(error, (Unavailable, RateLimited)):
            raise error
        if error is None and not self._failures:
            self._failures = 1  # so a server that ends each at once is not asked without a pause
            return 0.0
        self._failures += 1
        wait = max(backoff(self._failures), error.retry_after if error is not None else 0.0)
        if time.monotonic() + wait - self._heard_at > self._patience:
            raise error or Unavailable("the platform ends each stream at once")
        return wait
