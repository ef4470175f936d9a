"""Pages that only say something: what went wrong, and the way on. To programs it is said in a line of text."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from dashboards.access.site import TEMPLATES, Site, sentence
from dashboards.shell import header


def add(app: FastAPI, site: Site) -> None:
    """Answer so where there is no page, or a form is not taken."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = "There is no such page." if error.status_code == HTTPStatus.NOT_FOUND else error.detail
        if not wants_html(request.headers.getlist("accept")):
            return PlainTextResponse(text, error.status_code, error.headers)
        notice = {"title": title(error.status_code), "text": text, "target": "/", "way": "To the fleet"}
        response = site.page(request, "message.html", status=error.status_code, **notice)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(HTTPException, answer)


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
