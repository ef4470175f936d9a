"""The ASGI app below ``/api/v1``, and its description."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from dashboards.api import (
    alarms,
    commands,
    configuration,
    devices,
    firmware,
    hosts,
    problems,
    rejects,
    rules,
    series,
    stream,
    system,
    tokens,
    users,
)
from dashboards.api.bodies import BodyLimit
from dashboards.api.caller import SCHEMES, note
from dashboards.api.once import Once
from dashboards.desk import Desk
from dashboards.feed import Feed
from dashboards.pipeline import PipelineSource
from isotherm import __version__
from isotherm.accounts.accounts import Accounts
from isotherm.accounts.audit import Audit
from isotherm.configuration import Rollouts
from isotherm.firmware import Firmware
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.events import EventLog
from isotherm.store.reader import Reader

PATH = "/api/v1"

_DESCRIPTION = """
Show a token as `Authorization: Bearer iso_…` (`isotherm tokens create USER --scope read`). A refusal is
`application/problem+json` (RFC 9457) that names field, value and rule; nothing of what was asked for is done then.

Lists come in pages: send `next` as `cursor`. Representations have an ETag: `If-None-Match` saves the transfer, `If-Match`
keeps a change from overwriting another. A POST or PATCH with an `Idempotency-Key` may be sent
again: it is done once. Times are ISO 8601 in UTC,
or, where they are numbers, µs since the epoch.
"""
_PROBLEM = {problems.MEDIA_TYPE: {"schema": problems.schema()}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase, "content": _PROBLEM}
    for status in (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503)
}


def build(
    settings: Settings,
    redis: Client,
    reader: Reader,
    feed: Feed,
    desk: Desk,
    figures: PipelineSource,
    accounts: Accounts,
) -> FastAPI:
    """Return the app; it is behind the guard, which says who asks."""
    app: FastAPI = FastAPIOffline(
        title="Isotherm",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        static_url="/docs/static",
        responses=_REFUSALS,
        dependencies=SCHEMES,
        swagger_ui_parameters={"persistAuthorization": False, "tryItOutEnabled": True},
    )
    problems.install(app, partial(note, Audit(redis)))
    app.add_middleware(BodyLimit, is_json=True)
    once = Once(redis)
    rollouts = Rollouts(redis, settings.partitions)
    app.include_router(devices.router(redis, reader, rollouts.configurations))
    app.include_router(devices.token_router(redis, once))
    app.include_router(devices.label_router(redis))
    app.include_router(devices.presence_router(redis, settings.partitions))
    app.include_router(commands.router(redis, settings, desk, once))
    app.include_router(configuration.device_router(redis, rollouts, desk, once))
    app.include_router(configuration.rollout_router(rollouts, Firmware(redis), desk, once))
    app.include_router(configuration.steering_router(rollouts, desk, once))
    app.include_router(firmware.router(redis))
    app.include_router(firmware.key_router(redis, once))
    app.include_router(series.router(reader))
    app.include_router(stream.router(feed, reader, Audit(redis)))
    app.include_router(alarms.router(redis, settings, desk, once))
    app.include_router(rules.router(redis, desk))
    app.include_router(rejects.router(settings, redis, once))
    app.include_router(tokens.router(accounts, once))
    app.include_router(users.router(accounts, settings, once))
    app.include_router(hosts.router(accounts, settings, once))
    app.include_router(system.router(redis, figures, EventLog(redis, settings.partitions), settings.partitions))
    return app
