"""Log in and out, register, and choose a password by a link."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from dashboards.access import cookies
from dashboards.access.site import Site, own_path, see_other, sentence
from isotherm.accounts.links import Link
from isotherm.errors import BadField, Throttled, Unauthorized, Unavailable


def add(app: FastAPI, site: Site) -> None:
    """Add the pages."""
    _add_log_in(app, site)
    _add_log_out(app, site)
    _add_register(app, site)
    _add_reset(app, site)


def _add_log_in(app: FastAPI, site: Site) -> None:
    @app.get("/login")
    async def show(request: Request, next: str = "/") -> Response:
        if site.visitor(request) is not None:
            return see_other(own_path(next))
        return site.page(request, "login.html", values={"next": own_path(next), "name": ""})

    @app.post("/login")
    async def log_in(request: Request) -> Response:
        fields = await site.read(request)
        target = own_path(fields.get("next", ""))
        try:
            identity = await site.accounts.log_in(fields.get("name", ""), fields.get("password", ""), site.actor(request))
        except (Unauthorized, Unavailable) as error:
            values = {"next": target, "name": fields.get("name", "")[:100]}
            return refused(
                site.page(request, "login.html", status=status_of(error), problem=sentence(error), values=values), error
            )
        return site.enter(request, identity, target)


def _add_log_out(app: FastAPI, site: Site) -> None:
    @app.get("/logout")
    async def ask(request: Request) -> Response:
        visitor = site.visitor(request)
        return see_other("/") if visitor is None or visitor.is_local else site.page(request, "logout.html")

    @app.post("/logout")
    async def log_out(request: Request) -> Response:
        await site.read(request)
        await site.accounts.log_out(site.actor(request))
        response = see_other("/login")
        response.headers.append("set-cookie", cookies.drop_cookie(cookies.SESSION))
        return response


def _add_register(app: FastAPI, site: Site) -> None:
    mode = site.settings.registration

    async def invitation(secret: str) -> Link | None:
        return await site.accounts.invited(secret) if secret and mode != "closed" else None

    def closed(request: Request) -> Response:
        text = (
            "Registration is closed." if mode == "closed" else "This needs an invitation, and its link is over, or was used."
        )
        return _message(site, request, "Register", f"{text} Ask an admin of this place.")

    @app.get("/register")
    async def show(request: Request, link: str = "") -> Response:
        invited = await invitation(link)
        if mode != "open" and invited is None:
            return closed(request)
        values = {"link": link if invited else "", "role": invited.role if invited else "", "name": ""}
        return site.page(request, "register.html", values=values)

    @app.post("/register")
    async def register(request: Request) -> Response:
        fields = await site.read(request)
        link, name = fields.get("link", ""), fields.get("name", "")
        invited = await invitation(link)
        if mode != "open" and invited is None:
            return closed(request)
        actor = site.actor(request)
        try:
            user = await site.accounts.register(name, fields.get("password", ""), actor, link if invited else None)
        except (BadField, Unauthorized, Unavailable) as error:
            values = {"link": link, "role": invited.role if invited else "", "name": name[:100]}
            return refused(site.page(request, "register.html", status=status_of(error), values=values, **said(error)), error)
        return site.enter(request, await site.accounts.begin(user.name, actor), "/")


def _add_reset(app: FastAPI, site: Site) -> None:
    def over(request: Request) -> Response:
        return _message(site, request, "Choose a password", "This link is over, or was used. Ask an admin for another.")

    @app.get("/reset")
    async def show(request: Request, link: str = "") -> Response:
        name = await site.accounts.resettable(link)
        if name is None:
            return over(request)
        return site.page(request, "reset.html", values={"link": link, "name": name})

    @app.post("/reset")
    async def reset(request: Request) -> Response:
        fields = await site.read(request)
        link = fields.get("link", "")
        name = await site.accounts.resettable(link)
        if name is None:
            return over(request)
        actor = site.actor(request)
        try:
            await site.accounts.reset_password(link, fields.get("password", ""), actor)
        except (BadField, Unauthorized, Unavailable) as error:
            values = {"link": link, "name": name}
            return refused(site.page(request, "reset.html", status=status_of(error), values=values, **said(error)), error)
        return site.enter(request, await site.accounts.begin(name, actor), "/")


def said(error: Exception) -> dict[str, object]:
    """Return what a page says of an error: at the field that it concerns, or above everything."""
    if isinstance(error, BadField) and error.field != "link":
        return {"errors": {error.field: sentence(error)}}
    return {"problem": sentence(error)}


def status_of(error: Exception) -> int:
    """Return the status of an answer to an error."""
    if isinstance(error, Throttled):
        return 429
    if isinstance(error, Unauthorized):
        return 401
    return 503 if isinstance(error, Unavailable) else 422


def refused(response: Response, error: Exception) -> Response:
    """Add when to try again."""
    if isinstance(error, Throttled):
        response.headers["retry-after"] = str(error.seconds)
    return response


def _message(site: Site, request: Request, title: str, text: str) -> Response:
    values = {"title": title, "text": text, "target": "/login", "way": "Log in"}
    return site.page(request, "message.html", status=403, **values)
