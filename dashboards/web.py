"""The ASGI app: which address is which page, and what the process tells about itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_bytes

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from panel.io.fastapi import add_applications
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dashboards import mends
from dashboards.feed import Feed
from dashboards.guard import Guard
from dashboards.pages import device, fleet
from dashboards.shell import STATIC
from isotherm.errors import SettingsError, Unavailable
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.reader import Reader

UNCONNECTED_MS = 30_000
"""How long a page may take from its HTML to its websocket: a slow phone loads 1.5 MB in between."""


def build(settings: Settings, feed: Feed, reader: Reader) -> Guard:
    """Return the app. It runs the feed for as long as it is served."""
    mends.mend()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(feed.run(), name="feed")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(title="Isotherm", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_health(app, settings)
    app.mount("/assets", StaticFiles(directory=STATIC), name="assets")
    add_applications(
        {"/": lambda: fleet.page(feed, settings), "/device": lambda: device.page(feed, reader)},
        app=app,
        title={"/": "Fleet · Isotherm", "/device": "Device · Isotherm"},
        location=False,
        sign_sessions=True,
        secret_key=token_bytes(32),
        unused_session_lifetime_milliseconds=UNCONNECTED_MS,
        include_headers=[],  # they would travel in the page's token, cookies included
        include_cookies=[],
    )
    return Guard(app, host=settings.host)


def _add_health(app: FastAPI, settings: Settings) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "alive"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> PlainTextResponse:
        try:
            async with client.connected(settings):
                return PlainTextResponse("ready")
        except (Unavailable, SettingsError) as error:
            return PlainTextResponse(str(error), status_code=503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
