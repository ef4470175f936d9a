"""Pages that only say something: what went wrong, and the way on. To programs it is said in a line of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from dashboards.access.site import TEMPLATES, Site, sentence
from dashboards.api.problems import RETRY_SECONDS
from dashboards.shell import header
from isotherm.errors import Unavailable


def add(app: FastAPI, site: Site) -> None:
    """Answer so where there is no page, or a form is not taken."""

    def drawn(request: Request, status: int, text: str, headers: Mapping[str, str] | None) -> Response:
        if not wants_html(request.headers.getlist("accept")):
            return PlainTextResponse(text, status, headers)
        notice = {"title": title(status), "text": text, "target": "/", "way": "To the fleet"}
        response = site.page(request, "message.html", status=status, **notice)
        response.headers.update(headers or {})
        return response

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = "There is no such page." if error.status_code == HTTPStatus.NOT_FOUND else error.detail
        return drawn(request, error.status_code, text, error.headers)

    async def away(request: Request, error: Exception) -> Response:
        text = sentence(f"{error}; try again in a few seconds")
        return drawn(request, HTTPStatus.SERVICE_UNAVAILABLE, text, {"retry-after": str(RETRY_SECONDS)})

    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(Unavailable, away)


def html(status: int, text: str) -> bytes:
    """Return such a page for whoever asked, about whom nothing is known."""
    notice = {"title": title(status), "text": sentence(text), "target": "/", "way": "To the fleet"}
    template = TEMPLATES.get_template("message.html")
    return template.render(header=header(None, "", ""), done="", problem="", **notice).encode()


def title(status: int) -> str:
    """Return what a status is called: ``Not Found``."""
    return HTTPStatus(status).phrase


def wants_html(accept: Iterable[str]) -> bool:
    """Tell whether a person's browser asks, which prefers HTML and says so."""
    return any("text/html" in value for value in accept)
