"""The web process: starts, serves, ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["BOKEH_RESOURCES"] = "server"  # read on import: nothing comes from elsewhere

import uvicorn

from dashboards import web
from dashboards.api import stream
from dashboards.feed import Feed
from dashboards.guard import Guard
from dashboards.log import look_at
from isotherm import health
from isotherm.errors import SettingsError, Unavailable
from isotherm.process import stop_signal
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.reader import Reader

MAX_MESSAGE_BYTES = 64 * 1024
"""One websocket message from a browser: ranges, clicks, acknowledgements."""

STOP_SECONDS = 1
"""How long open requests and websockets may take to end."""

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Serve the dashboards until SIGTERM or SIGINT.

    Raises:
        SettingsError: the address cannot be bound, or the store belongs to other settings.
    """
    stop = stop_signal()
    await _check_store(settings)
    listener = _bind(settings)
    redis = client.connect(settings)
    try:
        reader = Reader(redis, settings.partitions)
        feed = Feed(redis, reader, settings.partitions)
        app = web.build(settings, feed, reader, redis)
        gc.freeze()  # a session is one heap of cycles: freeing it must not walk all of Panel and hold everybody up
        async with contextlib.AsyncExitStack() as beside:
            if settings.health_port:  # what the pages' own port says is for whoever may see the pages
                served = health.served(settings, lambda: web.waiting_for(settings), lag=lambda: _lag(redis, settings))
                await beside.enter_async_context(served)
            await _serve(app, listener, stop)
    finally:
        await redis.aclose()
        listener.close()


async def _lag(redis: client.Client, settings: Settings) -> dict[str, int]:
    """Return how many records of Kafka are not stored yet, by which workers are scaled (infra/k8s/components/keda)."""
    return {"records": sum((await look_at(redis, settings)).lag)}


async def _check_store(settings: Settings) -> None:
    """Refuse settings that contradict the store; a store that does not answer yet may come later."""
    try:
        async with client.connected(settings):
            return
    except Unavailable as error:
        log.warning("%s; pages will show it when it does", error)


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        address = (settings.host, settings.web_port)
        listener = socket.create_server(address, family=family, backlog=512, reuse_port=settings.reuse_port)
    except OSError as error:
        raise SettingsError(
            f"cannot serve dashboards at {settings.host}:{settings.web_port}: {error.strerror}; "
            "set ISOTHERM_WEB_PORT to a free port, or 0"
        ) from error
    # asyncio sets it on sockets of the protocol TCP, and those of create_server are of the protocol 0. Without it the second
    # packet of an answer, its body, waits 40 ms for the acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its own idea of signals: this process has one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(app: Guard, listener: socket.socket, stop: asyncio.Event) -> None:
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whom to believe is a setting of ours
            timeout_graceful_shutdown=STOP_SECONDS,
            ws_max_size=MAX_MESSAGE_BYTES,
        )
    )
    for chatty in ("uvicorn", "bokeh_fastapi", "tornado"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # A browser may leave while it is written to: asyncio warns of that, a message being several frames.
    logging.getLogger("asyncio").addFilter(lambda record: record.msg != "socket.send() raised exception.")
    host, port = listener.getsockname()[:2]
    log.info("dashboards at http://%s:%d/", f"[{host}]" if ":" in host else host, port)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sockets=[listener]), name="web-server")
        stopping = group.create_task(stop.wait(), name="web-stop")
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stream.end_all()
        stopping.cancel()
