"""The ASGI app below ``/api/prometheus``: what Prometheus' HTTP API calls ``/api/v1`` is there ``/api/prometheus/api/v1``.

Not ``/api/v1`` itself: ``/series`` and ``/rules`` are other things there. What is asked for by POST changes nothing.

Source: Prometheus 3, HTTP API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from dashboards.api.bodies import BodyLimit
from dashboards.api.caller import may, note
from dashboards.api.problems import RETRY_SECONDS
from dashboards.prometheus import answers, parameters, problems
from dashboards.prometheus.catalogue import Catalogue, Known
from dashboards.prometheus.engine import MAX_SECONDS, Engine
from dashboards.prometheus.evaluation import Labels
from dashboards.prometheus.language import Selector, parse, parse_selector
from dashboards.prometheus.names import unescaped
from dashboards.prometheus.parameters import Parameters
from dashboards.prometheus.problems import BadQuery, TooMuch, TooSlow
from dashboards.visitor import NotAllowed, Visitor
from isotherm import __version__
from isotherm.accounts.audit import Audit
from isotherm.errors import Unauthorized, Unavailable
from isotherm.limits import SECOND
from isotherm.store.client import Client
from isotherm.store.reader import Reader

PATH = "/api/prometheus"

COMPATIBLE = "3.0.0"
"""The Prometheus that we answer like: programs tell by it what they may ask for."""

MayRead = Annotated[Visitor, may("series:read")]

_BOTH = ["GET", "POST"]
_HEADERS = {"cache-control": "private, no-cache"}
_TRUNCATED = "results truncated due to limit"


def build(redis: Client, reader: Reader) -> FastAPI:
    """Return the app; it is behind the guard, which says who asks. It describes itself by Prometheus' own description."""
    app = FastAPI(title="Isotherm, as Prometheus", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit)
    catalogue = Catalogue(redis, reader)
    app.include_router(_queries(Engine(catalogue, reader)), prefix="/api/v1")
    app.include_router(_metadata(catalogue), prefix="/api/v1")
    _install_refusals(app, Audit(redis))
    return app


def _queries(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.api_route("/query", methods=_BOTH)
    async def query(request: Request, _: MayRead) -> Response:
        """Evaluate a query at one time."""
        given = await parameters.of(request)
        tree, time, seconds = parse(given.text("query")), given.time("time"), _seconds(given)
        if isinstance(tree, Selector) and tree.range:
            return _json(answers.readings(await engine.readings(tree, time, seconds)))
        return _json(answers.instant(await engine.value(tree, [time], 0, seconds), time))

    @routes.api_route("/query_range", methods=_BOTH)
    async def query_range(request: Request, _: MayRead) -> Response:
        """Evaluate a query at each step of a range of time."""
        given = await parameters.of(request)
        times, tree, seconds = given.steps(), parse(given.text("query")), _seconds(given)
        if tree.type == "matrix":
            raise BadQuery('invalid parameter "query": a range vector, expected a number or an instant vector')
        value = await engine.value(tree, times, times.step, seconds)
        return StreamingResponse(answers.matrix(value, times), headers=_HEADERS, media_type=problems.MEDIA_TYPE)

    @routes.api_route("/query_exemplars", methods=_BOTH)
    async def query_exemplars(_: MayRead) -> Response:
        """Return the exemplars, of which there are none."""
        return _json(answers.success([]))

    return routes


def _metadata(catalogue: Catalogue) -> APIRouter:
    routes = APIRouter()

    @routes.api_route("/series", methods=_BOTH)
    async def series(request: Request, _: MayRead) -> Response:
        """Return the series that selectors mean."""
        given = await parameters.of(request)
        if not given.all("match[]"):
            raise BadQuery("no match[] parameter provided")
        return _limited([one.labels for one in await _selected(catalogue, given)], given.limit())

    @routes.api_route("/labels", methods=_BOTH)
    async def labels(request: Request, _: MayRead) -> Response:
        """Return the names of all labels."""
        given = await parameters.of(request)
        found = await _selected(catalogue, given)
        return _limited(sorted({name for one in found for name in one.labels}), given.limit())

    @routes.get("/label/{name}/values")
    async def values(request: Request, _: MayRead, name: str) -> Response:
        """Return the values of a label."""
        given = await parameters.of(request)
        wanted = unescaped(name)
        found = {one.labels[wanted] for one in await _selected(catalogue, given) if wanted in one.labels}
        return _limited(sorted(found), given.limit())

    @routes.get("/metadata")
    async def metadata(request: Request, _: MayRead) -> Response:
        """Return the units of metrics. What kind one is nobody has said."""
        given = await parameters.of(request)
        metric, limit = given.text("metric"), given.limit()
        units = {name: said for name, said in (await catalogue.units()).items() if metric in ("", name)}
        some = list(units.items())[: limit or None]
        return _json(answers.success({name: [_described(unit) for unit in said] for name, said in some}))

    @routes.get("/rules")
    async def rules(_: MayRead) -> Response:
        """Return the recording rules, of which there are none; alarms are at ``/api/v1/alarms``."""
        return _json(answers.success({"groups": []}))

    @routes.get("/status/buildinfo")
    async def buildinfo(_: MayRead) -> Response:
        """Return what program this is: the Prometheus that it answers like, and itself."""
        said = {"branch": "", "buildUser": "", "buildDate": "", "goVersion": ""}
        return _json(answers.success({"version": COMPATIBLE, "revision": f"isotherm-{__version__}", **said}))

    return routes


async def _selected(catalogue: Catalogue, given: Parameters) -> Iterable[Known]:
    """Return the series that ``match[]`` means, each once, and that have a reading since ``start``."""
    since = given.time("start", 0)
    if given.time("end", since) < since:
        raise BadQuery('invalid parameter "end": end timestamp must not be before start time')
    selectors = [parse_selector(one).matchers for one in given.all("match[]")] or [()]
    found = [known for matchers in selectors for known in await catalogue.select(matchers, since)]
    return {known.series: known for known in found}.values()


def _limited(found: list[str] | list[Labels], limit: int) -> Response:
    is_cut = 0 < limit < len(found)
    return _json(answers.success(found[:limit] if is_cut else found, [_TRUNCATED] if is_cut else []))


def _described(unit: str) -> Mapping[str, str]:
    return {"type": "gauge", "help": "", "unit": unit}


def _seconds(given: Parameters) -> float:
    """Return how long a query may take, s."""
    timeout = given.duration("timeout", int(MAX_SECONDS * SECOND))
    if timeout <= 0:
        raise BadQuery('invalid parameter "timeout": it must be longer than 0')
    return timeout / SECOND


def _json(body: bytes) -> Response:
    return Response(body, headers=_HEADERS, media_type=problems.MEDIA_TYPE)


def _install_refusals(app: FastAPI, audit: Audit) -> None:
    async def refused(_: Request, error: Exception) -> Response:
        return _refusal(error)

    async def forbidden(request: Request, error: Exception) -> Response:
        assert isinstance(error, NotAllowed)
        await note(audit, request, error)
        return _refusal(error)

    async def failed(_: Request, error: Exception) -> Response:
        return _said(500, "this is an error of ours, and its details are in the log of the web process")

    for kind in (BadQuery, TooMuch, TooSlow, Unauthorized, Unavailable, HTTPException):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(NotAllowed, forbidden)
    app.add_exception_handler(Exception, failed)


def _refusal(error: Exception) -> Response:
    match error:
        case BadQuery():
            return _said(400, str(error))
        case TooMuch():
            return _said(422, str(error))
        case TooSlow():
            return _said(503, str(error), kind="timeout")
        case NotAllowed():
            return _said(403, str(error))
        case Unauthorized():
            return _said(401, str(error), {"www-authenticate": "Bearer"})
        case Unavailable():
            return _said(503, f"{error}; try again in a few seconds", {"retry-after": str(RETRY_SECONDS)})
        case HTTPException():
            return _said(error.status_code, str(error.detail), error.headers)
        case _:
            raise error


def _said(status: int, detail: str, headers: Mapping[str, str] | None = None, *, kind: str = "") -> Response:
    return Response(problems.body(status, detail, kind), status, headers, problems.MEDIA_TYPE)
