"""One's own account: the password, the sessions, and the API tokens."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access.log_in import refused, said, status_of
from dashboards.access.site import Site, see_other
from isotherm.accounts.api_tokens import DEFAULT_DAYS, MAX_DAYS
from isotherm.clock import iso
from isotherm.errors import BadField, SettingsError, Throttled, Unavailable

_DONE = {
    "password": "Your password is changed; all other sessions have ended.",
    "sessions": "Done.",
    "token": "The token is revoked.",
}

_ACCESS = {"read": ("read",), "write": ("read", "write")}
"""What a token of the page may do; `isotherm tokens create` and the REST API give fewer scopes."""


def add(app: FastAPI, site: Site) -> None:
    """Add the pages."""
    _add_log_in(app, site)
    _add_tokens(app, site)

    @app.get("/account")
    async def show(request: Request, done: str = "") -> Response:
        return await _draw(site, request, done=_DONE.get(done, ""))


def _add_log_in(app: FastAPI, site: Site) -> None:
    @app.post("/account/password")
    async def change_password(request: Request) -> Response:
        fields = await site.read(request)
        try:
            identity = await site.accounts.change_password(fields.get("old", ""), fields.get("new", ""), site.actor(request))
        except (BadField, Throttled, Unavailable) as error:
            return refused(await _draw(site, request, status_of(error), **said(error)), error)
        return site.enter(request, identity, "/account?done=password")

    @app.post("/account/sessions")
    async def end_sessions(request: Request) -> Response:
        fields = await site.read(request)
        actor = site.actor(request)
        chosen = fields.get("session", "")
        try:
            for hashed in (
                [one.hash for one in await site.accounts.sessions.of(actor.name)] if chosen == "others" else [chosen]
            ):
                if hashed != actor.session:
                    await site.accounts.end_session(hashed, actor)
        except SettingsError as error:
            return await _draw(site, request, 422, **said(error))
        return see_other("/account?done=sessions")


def _add_tokens(app: FastAPI, site: Site) -> None:
    @app.post("/account/tokens/{action}")
    async def change_tokens(request: Request, action: str) -> Response:
        fields = await site.read(request)
        actor = site.actor(request)
        try:
            if (await site.accounts.users.existing(actor.name)).must_change:
                return see_other("/account")  # who gave them the password could make tokens that outlive it
            if action == "revoke":
                await site.accounts.revoke_token(actor.name, fields.get("id", ""), actor)
                return see_other("/account?done=token")
            token, made = await site.accounts.create_token(
                actor.name, fields.get("name", ""), _scopes(fields), _days(fields), actor
            )
        except (SettingsError, Unavailable) as error:
            values = {"name": fields.get("name", "")[:100], "days": fields.get("days", "")[:10]}
            return await _draw(site, request, status_of(error), values=values, **said(error))
        text = f"Programs show it as Authorization: Bearer. It is not shown again, and ends on {iso(made.expires)[:10]}."
        return await _draw(
            site, request, once={"title": f"Token: {made.name}", "text": text, "secret": token, "picture": ""}
        )


async def _draw(site: Site, request: Request, status: int = 200, **context: Any) -> Response:
    visitor = site.visitor(request)
    user = None if visitor is None or visitor.is_local else await site.accounts.users.existing(visitor.name)
    sessions = await site.accounts.sessions.of(user.name) if user else []
    tokens = await site.accounts.tokens.of(user.name) if user else []
    held = {
        "user": user,
        "sessions": sessions,
        "tokens": tokens,
        "days": DEFAULT_DAYS,
        "once": None,
        "values": {"name": "", "days": ""},
    }
    return site.page(request, "account.html", status=status, **(held | context))


def _scopes(fields: dict[str, str]) -> tuple[str, ...]:
    try:
        return _ACCESS[fields.get("access", "")]
    except KeyError as error:
        raise BadField("access", "say whether it may only read, or also write") from error


def _days(fields: dict[str, str]) -> int:
    text = fields.get("days", "")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise BadField("days", f"a token lasts 1 to {MAX_DAYS} days")
    return int(text)
