"""How a refusal is said: ``application/problem+json`` (RFC 9457), with the field, its value and the rule where there are."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from dashboards.visitor import NotAllowed
from isotherm.errors import BadField, Changed, SettingsError, Throttled, Unauthorized, Unavailable

MEDIA_TYPE = "application/problem+json"
BODY = "isotherm.body"
"""Where a request's scope has the pieces of its body, of which a refusal names what is wrong."""

NO_JSON = "JSON in UTF-8, with at most some hundred levels and numbers of at most some thousand digits"
RETRY_SECONDS = 5
_MAX_VALUE_CHARS = 200
_MAX_FIELD_CHARS = 200


class Fault(BaseModel):
    """What is wrong with one field."""

    field: str
    value: Any = None
    rule: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457); nothing of it was done."""

    title: str
    status: int
    detail: str
    errors: list[Fault] = []


class NotFound(SettingsError):
    """There is no such resource."""


class Conflict(SettingsError):
    """The resource is not as the request supposes.

    Attributes:
        status: 409, or 412 for a condition in its headers.
    """

    def __init__(self, text: str, status: int = HTTPStatus.CONFLICT) -> None:
        super().__init__(text)
        self.status = status


def body(status: int, detail: str, errors: Sequence[Fault] = ()) -> bytes:
    """Return a problem as JSON."""
    problem: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        problem["errors"] = [one.model_dump() for one in errors]
    return msgspec.json.encode(problem)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a problem, in one piece."""
    found = Problem.model_json_schema()
    del found["$defs"]
    found["properties"]["errors"]["items"] = Fault.model_json_schema()
    return found


def answer(status: int, detail: str, errors: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as an answer."""
    return Response(body(status, detail, errors), status, headers, MEDIA_TYPE)


def install(app: FastAPI, noted: Callable[[Request, NotAllowed], Awaitable[None]]) -> None:
    """Let an app say every refusal so.

    Args:
        app: The app.
        noted: Keeps that somebody was refused what they may not do.
    """

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, BadField):
            return answer(422, str(error), [_fault_of(request, error)])
        if isinstance(error, HTTPException) and error.status_code == HTTPStatus.BAD_REQUEST and request.scope.get(BODY):
            return answer(400, "the body is no JSON that can be read", [Fault(field="body", rule=NO_JSON)])
        return said(error)

    async def forbidden(request: Request, error: Exception) -> Response:
        assert isinstance(error, NotAllowed)
        await noted(request, error)
        return said(error)

    async def failed(_: Request, error: Exception) -> Response:
        return answer(500, "this is an error of ours, and its details are in the log of the web process")

    async def not_allowed(request: Request, error: Exception) -> Response:
        # Starlette names the methods of the first route that has the address; others may have it, too.
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        matching = (one for template, one in app.openapi()["paths"].items() if compile_path(template)[0].match(path))
        allowed = {method.upper() for one in matching for method in one}
        return answer(405, f"{request.method} is not for this address", headers={"allow": ", ".join(sorted(allowed))})

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [_fault(one) for one in error.errors()]
        return answer(422, "; ".join(map(_in_words, faults[:3])), faults)

    for kind in (SettingsError, Unauthorized, Unavailable, HTTPException):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(NotAllowed, forbidden)
    app.add_exception_handler(Exception, failed)
    app.add_exception_handler(HTTPStatus.METHOD_NOT_ALLOWED, not_allowed)
    app.add_exception_handler(RequestValidationError, invalid)


def said(error: Exception) -> Response:
    """Return the answer that an error is, or raise it where it is none of ours."""
    match error:
        case BadField():
            return answer(422, str(error), [Fault(field=error.field, rule=error.expected)])
        case SettingsError():
            return _of_settings(error)
        case NotAllowed():
            return answer(403, str(error))
        case Throttled():
            return answer(429, str(error), headers={"retry-after": str(error.seconds)})
        case Unauthorized():
            return answer(401, str(error), headers={"www-authenticate": "Bearer"})
        case Unavailable():
            return answer(503, f"{error}; try again in a few seconds", headers={"retry-after": str(RETRY_SECONDS)})
        case HTTPException():
            return answer(error.status_code, str(error.detail), headers=error.headers)
        case _:
            raise error


def _of_settings(error: SettingsError) -> Response:
    match error:
        case NotFound():
            return answer(404, str(error))
        case Conflict():
            return answer(error.status, str(error))
        case Changed():
            return answer(412, f"{error}: read it again, and send If-Match with its ETag")
        case _:
            return answer(422, str(error))


def _fault(error: Mapping[str, Any]) -> Fault:
    """Return what pydantic found; values are shown as far as they are short, and never whole objects."""
    if error["type"] == "json_invalid":
        return Fault(field="body", rule=f"JSON: {error['ctx']['error']} at character {error['loc'][-1]}")
    field = ".".join(map(str, error["loc"][1:])) or str(error["loc"][0])
    return Fault(field=_cut(field, _MAX_FIELD_CHARS), value=_plain(error.get("input")), rule=error["msg"])


def _in_words(fault: Fault) -> str:
    is_said = fault.value is not None and fault.value != ""
    return f"{fault.field} is {_cut(repr(fault.value), 80)}: {fault.rule}" if is_said else f"{fault.field}: {fault.rule}"


def _fault_of(request: Request, error: BadField) -> Fault:
    """Return which field of a request is wrong, with the value that it has there."""
    value: Any = request.query_params.get(error.field)
    if value is None and (sent := request.scope.get(BODY)):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            given = msgspec.json.decode(b"".join(sent))
            value = given.get(error.field) if isinstance(given, dict) else None
    return Fault(field=error.field, value=_plain(value), rule=error.expected)


def _plain(value: object) -> str | int | float | None:
    """Return a value as a refusal shows it: as far as it is short, and never whole objects."""
    match value:
        case str():
            return _cut(value, _MAX_VALUE_CHARS).encode("utf-8", "replace").decode()
        case bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
