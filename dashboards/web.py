"""The ASGI app: which address is which page, and what the process tells about itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_bytes, token_hex

from bokeh_fastapi import BokehFastAPI
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from panel.io.fastapi import add_applications
from panel.io.resources import COMPONENT_PATH
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dashboards import downloads, sessions
from dashboards.access import first
from dashboards.access import pages as access_pages
from dashboards.access.oidc import Provider
from dashboards.access.site import Site
from dashboards.access.sockets import Sockets
from dashboards.alarms import AlarmSource
from dashboards.api import app as api
from dashboards.api.rate import rate_of
from dashboards.desk import Desk
from dashboards.feed import RETRY_SECONDS, Feed
from dashboards.guard import Guard
from dashboards.pages import alarms, compare, device, fleet, pipeline
from dashboards.pages.pipeline import Pipeline
from dashboards.prometheus import app as prometheus
from dashboards.shell import STATIC
from dashboards.sparks import Sparks
from isotherm.accounts.accounts import Accounts
from isotherm.configuration import Configurations
from isotherm.errors import SettingsError, Unavailable
from isotherm.process import end
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.client import Client
from isotherm.store.events import EventLog
from isotherm.store.reader import Reader, answering

SECRET_BYTES = 32
SECRET_SECONDS = 1.0
"""How long the store is waited for before pages are served that only this process can connect."""

_SECRET = "iso:{accounts}:pages"


def build(settings: Settings, feed: Feed, reader: Reader, redis: Client) -> Guard:
    """Return the app. It follows the store for as long as it is served."""
    sessions.install()
    alarm_source = AlarmSource(redis, settings)
    desk = Desk(redis, settings, reader, alarm_source)
    figures = Pipeline.of(redis, settings)
    accounts = Accounts.of(redis, settings)
    sockets = Sockets(redis, accounts.sessions)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        followers = {"secret": _share_secret(pages, redis)}
        followers |= {"feed": feed.run(), "alarms": alarm_source.run(), **figures.followers()}
        if settings.login == "required":
            followers |= {"kicks": sockets.run(), "first-admin": first.create(accounts)}
        tasks = [asyncio.create_task(work, name=name) for name, work in followers.items()]
        await asyncio.wait(tasks[:1], timeout=SECRET_SECONDS)
        yield
        await end(tasks)
        await desk.end()

    sparks = Sparks(reader)
    events = EventLog(redis, settings.partitions)
    app = FastAPI(title="Isotherm", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_health(app, settings)
    app.include_router(downloads.router(reader))
    provider = Provider(settings, redis) if settings.oidc_issuer and settings.login == "required" else None
    access_pages.add(app, Site(accounts, settings), Registry(redis), Configurations(redis, settings.partitions), provider)
    app.mount(api.PATH, api.build(settings, redis, reader, feed, desk, figures.figures, accounts), name="api")
    app.mount(prometheus.PATH, prometheus.build(redis, reader), name="prometheus")
    app.mount("/assets", StaticFiles(directory=STATIC), name="assets")
    pages = add_applications(
        {
            "/": lambda: fleet.page(feed, settings, sparks),
            "/device": lambda: device.page(feed, reader, events),
            "/compare": lambda: compare.page(feed, reader),
            "/alarms": lambda: alarms.page(feed, alarm_source, desk),
            "/pipeline": lambda: pipeline.page(feed, figures),
        },
        app=app,
        title={
            "/": "Fleet · Isotherm",
            "/device": "Device · Isotherm",
            "/compare": "Compare · Isotherm",
            "/alarms": "Alarms · Isotherm",
            "/pipeline": "Pipeline · Isotherm",
        },
        location=False,
        sign_sessions=True,
        secret_key=token_bytes(SECRET_BYTES),
    )
    _without_components(app)
    rate = rate_of(redis, settings.api_rate, settings.api_burst, is_shared=settings.reuse_port)
    return Guard(app, settings, accounts, sockets, rate)


def _without_components(app: FastAPI) -> None:
    """Take back Panel's address of components' files, which imports whatever module it names; ours are in the page."""
    routes = app.router.routes
    routes[:] = [route for route in routes if not getattr(route, "path", "").startswith(f"/{COMPONENT_PATH}")]


async def _share_secret(pages: BokehFastAPI, redis: Client) -> None:
    """Sign tokens with the secret of all web processes of this store, as soon as it answers."""
    while True:
        try:
            with answering():
                await redis.set(_SECRET, token_hex(SECRET_BYTES), nx=True)
                pages._secret_key = await redis.get(_SECRET)
        except Unavailable:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


async def waiting_for(settings: Settings) -> str | None:
    """Return None when pages can be served, else what is in the way."""
    try:
        async with client.connected(settings):
            return None
    except (Unavailable, SettingsError) as error:
        return str(error)


def _add_health(app: FastAPI, settings: Settings) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "alive"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> PlainTextResponse:
        waiting = await waiting_for(settings)
        return PlainTextResponse("ready" if waiting is None else waiting, status_code=200 if waiting is None else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
