"""Open websockets, ended when their session is: by log-out, another role, another password, a disabled account, or time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError

from isotherm.accounts.role import Role
from isotherm.accounts.sessions import KICKS, Sessions
from isotherm.errors import Unavailable
from isotherm.store.client import Client, heard

CODE = 4401
"""Of the close message; a page that gets it opens itself anew, and so ends at the log-in."""

LOOK_SECONDS = 60.0
"""Sessions of open sockets are looked up so often: a kick may be lost, time passes, and an open page is in use."""

RETRY_SECONDS = 0.5

log = logging.getLogger(__name__)


class Socket:
    """One open websocket.

    Attributes:
        role: With which its page was opened; None until that is known.
        ended: Set when its session is over, or may do something else now.
        is_closed: Whether the close message was sent.
    """

    def __init__(self) -> None:
        self.role: Role | None = None
        self.ended = asyncio.Event()
        self.is_closed = False


class Sockets:
    """The open websockets of this process."""

    def __init__(self, redis: Client, sessions: Sessions) -> None:
        self._redis = redis
        self._sessions = sessions
        self._open: dict[str, set[Socket]] = {}

    @contextmanager
    def opened(self, session: str) -> Iterator[Socket]:
        """Keep a websocket for the length of the block. Enter it before the session is looked up: no kick is missed then."""
        socket = Socket()
        self._open.setdefault(session, set()).add(socket)
        try:
            yield socket
        finally:
            others = self._open[session]
            others.discard(socket)
            if not others:
                del self._open[session]

    def end(self, session: str) -> None:
        """End the websockets of a session."""
        for socket in self._open.get(session, ()):
            socket.ended.set()

    async def run(self) -> None:
        """Follow the kicks, for ever."""
        while True:
            pubsub = self._redis.pubsub()
            try:
                await pubsub.subscribe(KICKS)
                await self._look()  # what was told while nobody listened
                await self._follow(pubsub)
            except (RedisError, Unavailable) as error:
                log.debug("no kicks: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await pubsub.aclose()

    async def _follow(self, pubsub: Any) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_SECONDS
        while True:
            message = await heard(pubsub, max(0.01, due - loop.time()))
            if message is not None:
                self.end(message["data"].decode())
            if loop.time() >= due:
                due = loop.time() + LOOK_SECONDS
                await self._look()

    async def _look(self) -> None:
        """End websockets whose session is over or has another role; the others' is in use."""
        for session in list(self._open):
            holder = await self._sessions.find(session)
            for socket in self._open.get(session, ()):
                if holder is None or socket.role not in (None, holder.role):
                    socket.ended.set()
