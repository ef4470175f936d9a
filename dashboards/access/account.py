"""One's own account: the password, and the sessions."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access.log_in import refused, said, status_of
from dashboards.access.site import Site, see_other
from isotherm.errors import BadField, SettingsError, Throttled, Unavailable

_DONE = {"password": "Your password is changed; all other sessions have ended.", "sessions": "Done."}


def add(app: FastAPI, site: Site) -> None:
    """Add the pages."""

    async def draw(request: Request, status: int = 200, **context: Any) -> Response:
        visitor = site.visitor(request)
        user = None if visitor is None or visitor.is_local else await site.accounts.users.existing(visitor.name)
        sessions = await site.accounts.sessions.of(user.name) if user else []
        return site.page(request, "account.html", status=status, user=user, sessions=sessions, **context)

    @app.get("/account")
    async def show(request: Request, done: str = "") -> Response:
        return await draw(request, done=_DONE.get(done, ""))

    @app.post("/account/password")
    async def change_password(request: Request) -> Response:
        fields = await site.read(request)
        try:
            identity = await site.accounts.change_password(fields.get("old", ""), fields.get("new", ""), site.actor(request))
        except (BadField, Throttled, Unavailable) as error:
            return refused(await draw(request, status_of(error), **said(error)), error)
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
            return await draw(request, 422, **said(error))
        return see_other("/account?done=sessions")
