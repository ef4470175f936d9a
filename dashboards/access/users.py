"""Admin: the users, and the audit log."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access.log_in import said, status_of
from dashboards.access.site import Site, see_other, sentence
from isotherm.accounts.accounts import Actor
from isotherm.accounts.role import Role
from isotherm.errors import BadField, SettingsError, Unavailable

ENTRIES = 100
"""Of the audit log, on one page."""

_DONE = {
    "role": "The role is changed.",
    "disable": "The user is disabled; their sessions have ended.",
    "enable": "The user is enabled.",
    "remove": "The user is removed.",
}


def add(app: FastAPI, site: Site) -> None:
    """Add the pages."""
    _add_users(app, site)
    _add_audit(app, site)


def _add_users(app: FastAPI, site: Site) -> None:
    async def draw(request: Request, status: int = 200, **context: Any) -> Response:
        users = await site.accounts.users.all()
        defaults = {"here": "/admin", "once": None, "values": {"name": ""}}
        return site.page(request, "users.html", status=status, users=users, roles=list(Role), **(defaults | context))

    @app.get("/admin")
    async def show(request: Request, done: str = "") -> Response:
        return await draw(request, done=_DONE.get(done, ""))

    @app.post("/admin/users/{action}")
    async def change(request: Request, action: str) -> Response:
        fields = await site.read(request)
        actor = site.actor(request)
        name = fields.get("name", "")
        if action == "remove" and fields.get("sure") != "yes":
            return _ask(site, request, name)
        try:
            once = await _change(site, request, action, name, fields, actor)
        except (SettingsError, Unavailable) as error:
            values = {"name": name[:100]}
            shown = said(error) if isinstance(error, BadField) and action == "create" else {"problem": sentence(error)}
            return await draw(request, status_of(error), values=values, **shown)
        return await draw(request, once=once) if once else see_other(f"/admin?done={action}")


async def _change(
    site: Site, request: Request, action: str, name: str, fields: dict[str, str], actor: Actor
) -> dict[str, str] | None:
    """Do what a form of the page asks for; returns what is shown once, if there is something."""
    accounts = site.accounts
    match action:
        case "create":
            password = await accounts.create(name, Role.of(fields.get("role", "")), actor)
            return _once(f"Password of {name}", "Hand it over; it must be changed at the first log-in.", password)
        case "invite":
            path = await accounts.link("invite", fields.get("role", ""), actor)
            return _once(
                "Invitation", "Whoever has this link may register, once, within 7 days.", site.origin(request) + path
            )
        case "reset":
            path = await accounts.link("reset", name, actor)
            text = f"With this link {name} may choose a password, once, within a day."
            return _once("Reset link", text, site.origin(request) + path)
        case "role":
            await accounts.set_role(name, Role.of(fields.get("role", "")), actor)
        case "disable" | "enable":
            await accounts.set_disabled(name, action == "disable", actor)
        case "remove":
            await accounts.remove(name, actor)
        case _:
            raise SettingsError(f"{action[:40]!r} is nothing that can be done to a user")
    return None


def _once(title: str, text: str, secret: str) -> dict[str, str]:
    return {"title": title, "text": text, "secret": secret, "picture": ""}


def _ask(site: Site, request: Request, name: str) -> Response:
    text = f"{name} can no longer log in, and their sessions end. What they did stays in the audit log."
    return site.page(
        request,
        "confirm.html",
        title=f"Remove {name}?",
        text=text,
        action="/admin/users/remove",
        name=name,
        label="Remove",
        back="/admin",
    )


def _add_audit(app: FastAPI, site: Site) -> None:
    @app.get("/admin/audit")
    async def show(request: Request, text: str = "", before: str = "") -> Response:
        place = before if _is_entry_id(before) else None
        entries = await site.accounts.audit.read(ENTRIES, place, text=text[:100])
        older = entries[-1].id if len(entries) == ENTRIES else ""
        shown = text[:100]
        return site.page(request, "audit.html", here="/admin/audit", once=None, entries=entries, text=shown, older=older)


def _is_entry_id(text: str) -> bool:
    time, _, number = text.partition("-")
    return time.isascii() and time.isdigit() and number.isascii() and number.isdigit() and len(text) < 40
