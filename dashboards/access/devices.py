"""Admin: the registered devices, and their tokens with a QR code."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import segno
from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access.log_in import status_of
from dashboards.access.site import Site, see_other, sentence
from isotherm.accounts.accounts import Actor
from isotherm.configuration import Configurations
from isotherm.errors import SettingsError, Unavailable
from isotherm.registry import Registry

SHOWN = 200
"""Devices on one page; others are found by searching."""

_DONE = {"add": "The device is registered.", "revoke": "Its tokens work no longer.", "remove": "The device is forgotten."}
_WHAT = {"add": "add device", "token": "new device token", "revoke": "revoke device tokens", "remove": "remove device"}
_SURE = {
    "revoke": (
        "Revoke the tokens of {}?",
        "It can send no more until it has a new one; connectors notice within 10 s.",
        "Revoke",
    ),
    "remove": (
        "Remove {}?",
        "It is forgotten with all that was set for it; its history stays until it expires.",
        "Remove",
    ),
}


def add(app: FastAPI, site: Site, registry: Registry, configurations: Configurations) -> None:
    """Add the pages."""

    async def draw(request: Request, text: str = "", status: int = 200, **context: Any) -> Response:
        wanted = text.strip()
        found = [one for one in await registry.all() if wanted in one.name or one.has_label(wanted)]
        defaults: dict[str, Any] = {"here": "/admin/devices", "once": None, "values": {"name": ""}}
        around = {"devices": found[:SHOWN], "total": len(found), "text": wanted}
        return site.page(request, "devices.html", status=status, **(defaults | around | context))

    @app.get("/admin/devices")
    async def show(request: Request, text: str = "", done: str = "") -> Response:
        return await draw(request, text[:100], done=_DONE.get(done, ""))

    @app.post("/admin/devices/{action}")
    async def change(request: Request, action: str) -> Response:
        fields = await site.read(request)
        actor, name = site.actor(request), fields.get("name", "")
        if action in _SURE and fields.get("sure") != "yes":
            return _ask(site, request, action, name)
        try:
            token = await _change(registry, configurations, action, name)
        except (SettingsError, Unavailable) as error:
            shown: dict[str, Any] = (
                {"errors": {"name": sentence(error)}} if action == "add" else {"problem": sentence(error)}
            )
            return await draw(request, status=status_of(error), values={"name": name[:200]}, **shown)
        await _note(site, actor, action, name)
        if token is None:
            return see_other(f"/admin/devices?done={action}")
        once = {
            "title": f"Token of {name}",
            "text": "The device shows it.",
            "secret": token,
            "picture": picture(name, token),
        }
        return await draw(request, name, once=once)


async def _change(registry: Registry, configurations: Configurations, action: str, name: str) -> str | None:
    """Do what a form of the page asks for; returns a new token, if one was made."""
    match action:
        case "add":
            if await registry.get(name) is not None:
                raise SettingsError(f"there is a device {name} already")
            await registry.add(name)
        case "token":
            return await registry.new_token(name)
        case "revoke":
            await registry.revoke_tokens(name)
        case "remove":
            await registry.remove(name)
            await configurations.forget(name)
        case _:
            raise SettingsError(f"{action[:40]!r} is nothing that can be done to a device")
    return None


def picture(name: str, token: str) -> str:
    """Return the QR code of a device's name and token, SVG: JSON with ``device`` and ``token``."""
    code = segno.make(msgspec.json.encode({"device": name, "token": token}), error="m", micro=False)
    written = io.BytesIO()
    code.save(
        written, kind="svg", border=4, xmldecl=False, svgns=True, title=f"QR code of the token of {name}", omitsize=True
    )
    return written.getvalue().decode()


async def _note(site: Site, actor: Actor, action: str, name: str) -> None:
    await site.accounts.audit.write(actor.name, _WHAT[action], name, address=actor.address)


def _ask(site: Site, request: Request, action: str, name: str) -> Response:
    title, text, label = _SURE[action]
    context: dict[str, Any] = {"title": title.format(name), "text": text, "label": label, "name": name}
    return site.page(request, "confirm.html", action=f"/admin/devices/{action}", back="/admin/devices", **context)
