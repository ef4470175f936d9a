"""Admin: virtual hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access.log_in import said, status_of
from dashboards.access.site import Site, see_other, sentence
from isotherm.accounts.accounts import Actor
from isotherm.errors import BadField, SettingsError, Unavailable
from isotherm.hosts import Hosts, HostsAway, HostsUnusable, Spec, backend_of
from isotherm.hosts.host import VNC_PORT, parsed, quantity
from isotherm.hosts.keys import public_keys

START_SECONDS = 5.0
"""How long a new host is waited for before the page says that it is starting."""

_DONE = {
    "create": "The host runs.",
    "starting": "The host is starting.",
    "keys": "These keys let in from now on.",
    "delete": "The host is deleted, with its volume.",
    "keep": "The host is deleted; its volume is kept.",
}
_FORM = {"name": "", "user": "", "cpus": "1", "memory": "1Gi", "disk": "10Gi", "keys": ""}
_MAX_SHOWN = 4_000


def add(app: FastAPI, site: Site) -> None:
    """Add the pages."""

    @app.get("/admin/hosts")
    async def show(request: Request, done: str = "") -> Response:
        return await _draw(site, request, done=_DONE.get(done, ""))

    @app.get("/admin/hosts/{name}/keys")
    async def show_keys(request: Request, name: str) -> Response:
        try:
            keys = await _hosts(site).keys(name)
        except (SettingsError, HostsAway) as error:
            return await _draw(site, request, _status_of(error), problem=sentence(error))
        return site.page(request, "host_keys.html", name=name, values={"keys": "\n".join(keys)})

    @app.post("/admin/hosts/{action}")
    async def change(request: Request, action: str) -> Response:
        fields = await site.read(request)
        name = fields.get("name", "")
        if action == "delete" and fields.get("sure") != "yes":
            return site.page(request, "host_delete.html", name=name)
        try:
            done = await _change(_hosts(site), action, name, fields, site.actor(request))
        except (SettingsError, Unavailable, HostsAway) as error:
            shown = said(error) if isinstance(error, BadField) else {"problem": sentence(error)}
            values = {key: fields.get(key, "")[:_MAX_SHOWN] for key in _FORM}
            if action == "keys" and isinstance(error, BadField):
                return site.page(request, "host_keys.html", status=422, name=name, values=values, **shown)
            return await _draw(site, request, _status_of(error), values=values if action == "create" else _FORM, **shown)
        return see_other(f"/admin/hosts?done={done}")


async def _draw(site: Site, request: Request, status: int = 200, **context: Any) -> Response:
    around: dict[str, Any] = {"off": "", "hosts": [], "quantity": quantity, "vnc": VNC_PORT}
    try:
        around["hosts"] = await _hosts(site).all()
    except HostsUnusable as error:
        around["off"] = sentence(error)
    except HostsAway as error:
        status = 503
        around["problem"] = sentence(error)
    users = [one.name for one in await site.accounts.users.all()]
    defaults = {"here": "/admin/hosts", "once": None, "values": _FORM, "users": users}
    return site.page(request, "hosts.html", status=status, **(defaults | around | context))


async def _change(hosts: Hosts, action: str, name: str, fields: Mapping[str, str], actor: Actor) -> str:
    """Do what a form of the page asks for; returns what is said of it."""
    match action:
        case "create":
            await hosts.create(_spec(fields), actor)
            try:
                await hosts.until_it_answers(name, START_SECONDS)
            except HostsAway:
                return "starting"  # the page says how it is
        case "keys":
            await hosts.set_keys(name, fields.get("keys", ""), actor)
        case "delete":
            keep = fields.get("keep") == "yes"
            await hosts.delete(name, actor, keep_volume=keep)
            return "keep" if keep else "delete"
        case _:
            raise SettingsError(f"{action[:40]!r} is nothing that can be done to a host")
    return action


def _spec(fields: Mapping[str, str]) -> Spec:
    try:
        cpus = float(fields.get("cpus", ""))
    except ValueError as error:
        raise BadField("cpus", f"cpus is {fields.get('cpus', '')[:40]!r}, expected a number such as 1 or 0.5") from error
    return Spec(
        name=fields.get("name", ""),
        user=fields.get("user", ""),
        cpus=cpus,
        memory=parsed("memory", fields.get("memory", "")),
        disk=parsed("disk", fields.get("disk", "")),
        keys=public_keys(fields.get("keys", "")),
    )


def _hosts(site: Site) -> Hosts:
    return Hosts(backend_of(site.settings), site.accounts)


def _status_of(error: Exception) -> int:
    return 503 if isinstance(error, HostsAway) else status_of(error)
