"""Admin: the settings of the web process, without their secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access.site import Site
from isotherm.settings import PREFIX, Settings
from isotherm.store.client import without_secrets

HIDDEN = "(hidden)"
_SECRET = re.compile(r"password|secret|token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """A setting: its variable, its value as it may be shown, and what it does."""

    name: str
    value: str
    description: str


def rows(settings: Settings) -> list[Row]:
    """Return every setting."""
    return [
        Row(PREFIX + name.upper(), _shown(name, field.repr, getattr(settings, name)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def add(app: FastAPI, site: Site) -> None:
    """Add the page."""

    @app.get("/admin/settings")
    async def show(request: Request) -> Response:
        return site.page(request, "settings.html", here="/admin/settings", once=None, rows=rows(site.settings))


def _shown(name: str, may_be_printed: bool, value: Any) -> str:
    if value is None or value == "":
        return "–"
    if not may_be_printed or _SECRET.search(name):
        return HIDDEN
    return without_secrets(value) if name == "redis" else str(value)
