"""What every process tells about itself over HTTP: ``/healthz``, ``/readyz`` and ``/metrics`` (Prometheus text)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from isotherm.errors import Unavailable
from isotherm.settings import Settings

Ready = Callable[[], str | Awaitable[str | None] | None]
"""Returns None when ready, else what is being waited for; may have to ask somebody."""

Figures = Callable[[], Awaitable[Mapping[str, int]]]
"""Returns numbers by name; raises Unavailable while they cannot be had."""


@asynccontextmanager
async def served(settings: Settings, ready: Ready, **further: Figures) -> AsyncIterator[int]:
    """Serve for the length of the block; yields the port.

    Args:
        settings: Address and port.
        ready: What ``/readyz`` says.
        further: What other paths say, as JSON: ``lag`` is ``/lag``.
    """

    async def readyz(_: web.Request) -> web.Response:
        waiting = ready()
        if isinstance(waiting, Awaitable):
            waiting = await waiting
        return web.Response(text="ready" if waiting is None else waiting, status=200 if waiting is None else 503)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    app.add_routes([web.get(f"/{name}", _telling(figures)) for name, figures in further.items()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.health_port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _telling(figures: Figures) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def tell(_: web.Request) -> web.Response:
        try:
            return web.json_response(await figures())
        except Unavailable as error:
            return web.Response(text=str(error), status=503)

    return tell
