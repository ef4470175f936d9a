"""A way to a server on which answers get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 1 << 16


class LossyWay:
    """Passes on what clients send and servers answer, but for the answers that are to be lost.

    Attributes:
        port: Where clients come.
        lose: The answer to the next question that has one of these in it is lost.
        closes: Whether the connection ends with it; else nothing more comes.
    """

    def __init__(self, server_port: int, *, closes: bool, server: str = "127.0.0.1") -> None:
        self.port = 0
        self.lose: set[bytes] = set()
        self.closes = closes
        self._server = (server, server_port)

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        answers, server = await asyncio.open_connection(*self._server)
        is_lost = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ask(client, server, is_lost), name="questions")
                tasks.create_task(self._answer(answers, back, is_lost), name="answers")
        except* ConnectionError:
            pass
        finally:
            server.close()
            back.close()

    async def _ask(self, client: asyncio.StreamReader, server: asyncio.StreamWriter, is_lost: asyncio.Event) -> None:
        while question := await client.read(_CHUNK_BYTES):
            if found := {one for one in self.lose if one in question}:
                self.lose -= found
                is_lost.set()
            server.write(question)
        raise ConnectionError("the client has gone")

    async def _answer(self, answers: asyncio.StreamReader, back: asyncio.StreamWriter, is_lost: asyncio.Event) -> None:
        while answer := await answers.read(_CHUNK_BYTES):
            if not is_lost.is_set():
                back.write(answer)
            elif self.closes:
                break
        raise ConnectionError("the server has gone")


@asynccontextmanager
async def lossy_way(server_port: int, *, closes: bool, server: str = "127.0.0.1") -> AsyncIterator[LossyWay]:
    """A way from a port of this machine to one of a server's, for the length of the block."""
    way = LossyWay(server_port, closes=closes, server=server)
    listener = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    way.port = listener.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        listener.close()
