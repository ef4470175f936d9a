"""Readings as they come, over Server-Sent Events or a WebSocket, and after a lost connection from where it was lost.

An event's id says how far each series was read (`isotherm.store.reader.Cursor`): what arrived after it, late readings
included, is what a client gets that shows it as Last-Event-ID, from whichever web process, also after a restart. The store
is the queue: a client that reads slowly is sent larger events, less often.

A WebSocket has the same in JSON messages: ``{"id": …, "readings": {SERIES: {"time": […], "value": […]}}}``; without
readings when there are none, and with a ``problem`` while the store does not answer.

Source: HTML Living Standard, 9.2 Server-sent events; RFC 6455.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated
from weakref import WeakSet

import msgspec
import numpy as np
from fastapi import APIRouter, Header, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

from dashboards.api import problems
from dashboards.api.caller import check, may, note
from dashboards.api.series import Names
from dashboards.downloads import checked_series
from dashboards.feed import Feed
from dashboards.visitor import NotAllowed, Visitor
from dashboards.window import Change
from isotherm.accounts.audit import Audit
from isotherm.clock import now_us
from isotherm.errors import BadField, IsothermError, Unavailable
from isotherm.process import end
from isotherm.store.layout import LATENESS, POINT, RAW
from isotherm.store.reader import Cursor, Reader

EVENT_STREAM = "text/event-stream"

KEEPALIVE_SECONDS = 15.0
"""A comment is sent when there was nothing else for so long: proxies close what is silent."""

STREAM_SECONDS = 900.0
"""After which the client has to ask again, as EventSource does by itself: a token may have been revoked."""

BEAT_SECONDS = 0.2
"""Readings that come within it are one event."""

MAX_ID_CHARS = 4_000

_ENDS = "End after so many seconds, with what has come by then; 0 asks for that alone, as often as one likes."

GOING_AWAY = 1001
"""Of the close message (RFC 6455 §7.4.1): another connection goes on after the last id."""

_open: WeakSet[Follower] = WeakSet()

MayRead = Annotated[Visitor, may("series:read")]


def router(feed: Feed, reader: Reader, audit: Audit) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["series"])

    @routes.get("/stream", response_class=StreamingResponse, responses={200: {"content": {EVENT_STREAM: {}}}})
    async def stream(
        request: Request,
        _: MayRead,
        series: Names,
        last_event_id: Annotated[str, Header(max_length=MAX_ID_CHARS, description="`id` of the last event seen.")] = "",
        after: Annotated[str, Query(max_length=MAX_ID_CHARS, description="The same, for who cannot send headers.")] = "",
        seconds: Annotated[float, Query(ge=0, le=STREAM_SECONDS, description=_ENDS)] = STREAM_SECONDS,
    ) -> Response:
        """Follow series: an event for the readings that have come, in columns: `time` in µs since the epoch, and `value`.

        Without an id it begins with the readings that come from now on. With one it goes on after it, if that is less than
        two hours ago; when it is more, what is older is in `/series`. A WebSocket at the same address has the same as JSON.
        Each ends after a quarter of an hour: ask again after the last id.
        """
        follower = await begun(series, last_event_id or after, seconds)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        events = (as_event(news) async for news in follower.news())
        return StreamingResponse(events, media_type=EVENT_STREAM, headers=headers)

    async def stream_messages(socket: WebSocket) -> None:
        asked = socket.query_params
        try:
            check(socket, "series:read")
            follower = await begun(asked.getlist("series"), asked.get("after", ""), parse_seconds(asked.get("seconds", "")))
        except IsothermError as error:
            if isinstance(error, NotAllowed):
                await note(audit, socket, error)
            await socket.send_denial_response(problems.said(error))
            return
        await socket.accept()
        await _send_all(socket, follower)

    routes.add_websocket_route("/stream", stream_messages)  # ours alone: FastAPI gives websockets to HTTPBearer, which fails

    async def begun(series: Sequence[str], after: str, seconds: float) -> Follower:
        names = checked_series(series)
        cursors = parse_id(after, names)
        if not cursors:
            cursors = {
                name: cursor for name, (_, cursor) in (await reader.tails(dict.fromkeys(names), now_us() - LATENESS)).items()
            }
        return Follower(feed, reader, cursors, seconds)

    return routes


@dataclass(frozen=True, slots=True)
class News:
    """What one event tells.

    Attributes:
        id: How far each series is told with it.
        points: Of each series that has some.
        problem: Why there are none, or empty.
        is_first: Whether it is the first one of a connection.
    """

    id: str
    points: Mapping[str, NDArray[np.void]] = field(default_factory=dict)
    problem: str = ""
    is_first: bool = False


def end_all() -> None:
    """End the streams of this process; their clients go on elsewhere, or later."""
    for follower in _open:
        follower.end()


class Follower:
    """One client: is woken by the feed, and reads on from its own cursors."""

    def __init__(self, feed: Feed, reader: Reader, cursors: Mapping[str, Cursor | None], seconds: float) -> None:
        self._feed = feed
        self._reader = reader
        self._cursors = dict(cursors)
        self._seconds = seconds
        self._woken = asyncio.Event()
        self._is_ended = False
        _open.add(self)

    async def news(self) -> AsyncIterator[News]:
        """Yield what comes, and after each silence nothing, until its time is over; what has come by then is told."""
        until = time.monotonic() + self._seconds
        for name in self._cursors:
            self._feed.watch_series(name, self)
        try:
            yield News(event_id(self._cursors), is_first=True)
            while not self._is_ended:
                self._woken.clear()
                try:
                    found = await self._reader.tails(self._cursors, _since(self._cursors))
                except Unavailable:
                    yield News(event_id(self._cursors), problem="the store does not answer; this goes on by itself")
                    found = {}
                some = {name: points for name, (points, _) in found.items() if len(points)}
                if some:
                    self._cursors = {name: cursor for name, (_, cursor) in found.items()}
                    yield News(event_id(self._cursors), some)
                if (left := until - time.monotonic()) <= 0:
                    return
                if some:
                    await asyncio.sleep(min(BEAT_SECONDS, left))
                elif not await self._news(min(KEEPALIVE_SECONDS, left)):
                    yield News(event_id(self._cursors))
        finally:
            self._feed.release(self)

    def end(self) -> None:
        """Say nothing more."""
        self._is_ended = True
        self._woken.set()

    def window_changed(self, change: Change) -> None:
        """Look what has come."""
        self._woken.set()

    def store_changed(self, problem: str | None) -> None:
        """Look whether it can be read."""
        self._woken.set()

    def is_behind(self) -> bool:
        """Never: it reads when it can send."""
        return False

    async def _news(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        return False


def event_id(cursors: Mapping[str, Cursor | None]) -> str:
    """Return the id of an event: of each series ``chunk:bytes,…``, in the order of the request.

    >>> event_id({"a/t": Cursor(((7, 32), (8, 0))), "b/t": Cursor(())})
    '7:32,8:0;'
    """
    return ";".join(
        ",".join(f"{chunk}:{read}" for chunk, read in cursor.read) if cursor else "" for cursor in cursors.values()
    )


def parse_id(text: str, names: Sequence[str]) -> dict[str, Cursor | None]:
    """Return the cursors that an id stands for; none for an empty one.

    Raises:
        BadField: it is none of these series'.

    >>> parse_id("7:32,8:0;", ["a/t", "b/t"])
    {'a/t': Cursor(read=((7, 32), (8, 0))), 'b/t': Cursor(read=())}
    """
    if not text:
        return {}
    parts = text.split(";")
    try:
        if len(parts) != len(names):
            raise ValueError("another number of series")
        places = [Cursor(tuple(map(_chunk, part.split(","))) if part else ()) for part in parts]
    except ValueError as error:
        said = f"this id is of no event of these series: {error}"
        raise BadField("Last-Event-ID", said, "`id` of an event, as it was") from error
    return dict(zip(names, places, strict=True))


def parse_seconds(text: str) -> float:
    """Return how long a stream is asked to be.

    Raises:
        BadField: it is none of 0 to STREAM_SECONDS.
    """
    try:
        seconds = float(text or STREAM_SECONDS)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= STREAM_SECONDS:
        raise BadField("seconds", f"seconds is {text[:40]!r}", f"a number, 0 to {STREAM_SECONDS:g}")
    return seconds


def _chunk(text: str) -> tuple[int, int]:
    number, _, read = text.partition(":")
    if not (number.isascii() and number.isdigit() and read.isascii() and read.isdigit() and len(text) <= 30):
        raise ValueError(f"{text[:40]!r} is no place in a chunk")
    if int(number) > now_us() // RAW.chunk + 2 or int(read) % POINT.itemsize:
        raise ValueError(f"{text!r} is in the future, or inside of a reading")
    return int(number), int(read)


def _since(cursors: Mapping[str, Cursor | None]) -> int:
    """Return a time before which nothing is unread, µs: the oldest chunk that some cursor knows, while points are kept."""
    oldest = now_us() - RAW.retention - RAW.chunk
    known = [chunk for cursor in cursors.values() if cursor is not None for chunk, _ in cursor.read]
    return max(min(known, default=0) * RAW.chunk, oldest)


def as_event(news: News) -> bytes:
    """Write news as a Server-Sent Event; where there are none, as a comment."""
    if news.is_first:
        return f"retry: 1000\nid: {news.id}\n\n".encode()
    if not news.points:
        return f": {news.problem}\n\n".encode()
    return b"id: " + news.id.encode() + b"\nevent: readings\ndata: " + msgspec.json.encode(_columns(news)) + b"\n\n"


def as_message(news: News) -> str:
    """Write news as a message of a WebSocket."""
    more = {"readings": _columns(news)} if news.points else {"problem": news.problem} if news.problem else {}
    return msgspec.json.encode({"id": news.id, **more}).decode()


def _columns(news: News) -> dict[str, dict[str, list[float]]]:
    return {
        name: {"time": points["time"].tolist(), "value": points["value"].tolist()} for name, points in news.points.items()
    }


async def _send_all(socket: WebSocket, follower: Follower) -> None:
    """Send messages until the client goes, or has to ask again."""

    async def until_gone() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass  # this stream takes no messages
        follower.end()

    watching = asyncio.create_task(until_gone(), name="stream-client")
    try:
        async for news in follower.news():
            await socket.send_text(as_message(news))
        if not watching.done():
            await socket.close(GOING_AWAY, "connect again with after= and the last id")
    except WebSocketDisconnect:
        pass  # it has gone while it was written to
    finally:
        await end([watching])
