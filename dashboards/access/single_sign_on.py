"""The addresses of the log-in with an OpenID Connect provider."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from dashboards.access import cookies
from dashboards.access.log_in import status_of
from dashboards.access.oidc import CALLBACK, Provider
from dashboards.access.site import Site, own_path, see_other, sentence
from isotherm.errors import Unauthorized, Unavailable


def add(app: FastAPI, site: Site, provider: Provider) -> None:
    """Add them."""

    def cookie_of(request: Request) -> str:
        return cookies.read(request.scope["isotherm.cookie"], cookies.FORM)

    def refused(request: Request, error: Exception) -> Response:
        values = {"title": "Log in", "text": sentence(error), "target": "/login", "way": "Back to the log-in"}
        return site.page(request, "message.html", status=status_of(error), **values)

    @app.get("/login/oidc")
    async def begin(request: Request, next: str = "/") -> Response:
        if site.visitor(request) is not None:
            return see_other(own_path(next))
        cookie = cookie_of(request) or cookies.new_form_cookie()
        try:
            url = await provider.begin(own_path(next), site.origin(request) + CALLBACK, cookie)
        except Unavailable as error:
            return refused(request, error)
        response = RedirectResponse(url, 303, {"cache-control": "no-store"})
        response.headers.append("set-cookie", cookies.set_cookie(cookies.FORM, cookie))
        return response

    @app.get(CALLBACK)
    async def finish(request: Request) -> Response:
        actor = site.actor(request)
        try:
            user, target = await provider.finish(request.query_params, site.origin(request) + CALLBACK, cookie_of(request))
            identity = await site.accounts.enter(user, actor)
        except Unauthorized as error:
            await site.accounts.audit.refuse("", "single sign-on", address=actor.address, detail=str(error))
            return refused(request, error)
        except Unavailable as error:
            return refused(request, error)
        return site.enter(request, identity, target)
