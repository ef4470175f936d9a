"""What the HTML pages have in common: forms that are read and checked, pages that are drawn, and who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dashboards.access import cookies
from dashboards.shell import header
from dashboards.visitor import Visitor, visitor_of
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.clock import iso
from isotherm.errors import Unauthorized
from isotherm.settings import Settings

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 100

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
)
TEMPLATES.filters["iso"] = iso


class Site:
    """The HTML pages' access to accounts, and their look."""

    def __init__(self, accounts: Accounts, settings: Settings) -> None:
        self.accounts = accounts
        self.settings = settings

    def visitor(self, request: Request) -> Visitor | None:
        """Return who asks, or None when nobody is logged in."""
        try:
            return visitor_of(request.headers)
        except Unauthorized:
            return None

    def actor(self, request: Request) -> Actor:
        """Return who asks, as the audit log names them."""
        visitor = self.visitor(request)
        return Actor(
            visitor.name if visitor else "",
            request.scope["isotherm.address"],
            request.headers.get("user-agent", ""),
            visitor.session if visitor else "",
        )

    async def read(self, request: Request) -> dict[str, str]:
        """Return the fields of a form that a page of ours has sent.

        Raises:
            HTTPException: it is none, it is too large, or its token is not of this session.
        """
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise HTTPException(415, "expected a form (application/x-www-form-urlencoded)")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM_BYTES:
                raise HTTPException(413, f"a form has at most {MAX_FORM_BYTES} bytes")
        try:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
        except ValueError as error:
            raise HTTPException(400, "this form is malformed") from error
        if not cookies.is_form_token(fields.pop("token", ""), self._cookie(request)):
            actor = self.actor(request)
            path = request.url.path
            await self.accounts.audit.refuse(
                actor.name,
                "form token",
                path,
                address=actor.address,
                detail="of another session",
                is_shown=bool(actor.name),
            )
            raise HTTPException(
                403,
                "This form belongs to another session, or your browser does not keep cookies here. Go back, load the page "
                "anew and try again. Cookies need HTTPS, or with Chromium and Firefox an address such as http://localhost.",
            )
        return fields

    def page(self, request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """Draw a page; it is not kept by the browser."""
        visitor = self.visitor(request)
        cookie = self._cookie(request)
        fresh = "" if cookie else cookies.new_form_cookie()
        token = cookies.form_token(cookie or fresh)
        defaults = {"errors": {}, "values": {}, "problem": "", "done": ""}
        around = header(visitor, token, request.url.path)
        text = TEMPLATES.get_template(template).render(
            {**defaults, "visitor": visitor, "token": token, "header": around, "settings": self.settings} | context
        )
        response = HTMLResponse(text, status, {"cache-control": "no-store"})
        if fresh:
            response.headers.append("set-cookie", cookies.set_cookie(cookies.FORM, fresh))
        return response

    def enter(self, request: Request, identity: str, target: str) -> RedirectResponse:
        """Answer somebody whose session has begun."""
        response = see_other(target)
        response.headers.append("set-cookie", cookies.set_cookie(cookies.SESSION, identity))
        if cookies.read(request.scope["isotherm.cookie"], cookies.FORM):
            response.headers.append("set-cookie", cookies.drop_cookie(cookies.FORM))
        return response

    def origin(self, request: Request) -> str:
        """Return what this server's own links begin with."""
        return self.settings.web_origin or f"{request.url.scheme}://{request.headers['host']}"

    def _cookie(self, request: Request) -> str:
        """Return the value that forms are bound to: the session's, or while there is none a random one."""
        visitor = self.visitor(request)
        name = cookies.FORM if visitor is None or visitor.is_local else cookies.SESSION
        return cookies.read(request.scope["isotherm.cookie"], name)


def sentence(text: object) -> str:
    """Return a text, or that of an error, as a sentence."""
    said = str(text)
    return said[:1].upper() + said[1:] + "."


def see_other(target: str) -> RedirectResponse:
    """Send the browser on, after a form."""
    return RedirectResponse(target, 303, {"cache-control": "no-store"})


def own_path(text: str) -> str:
    r"""Return where to go after the log-in: ``text`` if it is a page of ours, else the first one.

    >>> own_path("/device?id=a"), own_path("//evil.example"), own_path("/\\evil.example"), own_path("https:evil.example")
    ('/device?id=a', '/', '/', '/')
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    strange = not text.startswith("/") or text.startswith(("//", "/\\")) or "\\" in text or not text.isprintable()
    if strange or parts.scheme or parts.netloc or parts.path in ("/login", "/logout") or len(text) > 2_000:
        return "/"
    return text
