"""How a representation is sent: JSON with an ETag (RFC 9110 §8.8.3), and long lists in pages with a cursor."""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Generic, TypeVar

from fastapi import Query, Request, Response
from pydantic import BaseModel

from dashboards.api.problems import Conflict
from isotherm.errors import BadField

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on a page.")]
Cursor = Annotated[str, Query(max_length=2_000, description="`next` of the page before; empty for the first.")]

_Item = TypeVar("_Item", bound=BaseModel)
_Found = TypeVar("_Found")


class Page(BaseModel, Generic[_Item]):
    """Some items of a list, and where the next ones begin: null on the last page."""

    items: list[_Item]
    next: str | None = None


def sent(request: Request, model: BaseModel, status: int = HTTPStatus.OK) -> Response:
    """Send a representation, or 304 to who has it already."""
    body = model.model_dump_json().encode()
    tag = etag(body)
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if status == HTTPStatus.OK and request.method == "GET" and _is_among(tag, request.headers.get("if-none-match", "")):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, status, headers, "application/json")


def etag(body: bytes) -> str:
    """Return the strong ETag of a representation."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def check_conditions(request: Request, present: BaseModel | None) -> bool:
    """See that a resource is as If-Match and If-None-Match say (RFC 9110 §13.1), before it is changed.

    Returns whether they say something: then the change itself has to be of what was looked at, or raise Changed.

    Raises:
        Conflict: it is not; 412.
    """
    tag = None if present is None else etag(present.model_dump_json().encode())
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted is not None and (tag is None or not _is_among(tag, wanted)):
        raise Conflict(
            "it has changed since it was read, or is gone: read it again, and send If-Match with its ETag",
            HTTPStatus.PRECONDITION_FAILED,
        )
    if unwanted is not None and tag is not None and _is_among(tag, unwanted):
        raise Conflict("it is there already, and If-None-Match says that it must not be", HTTPStatus.PRECONDITION_FAILED)
    return wanted is not None or unwanted is not None


def page_of(
    found: Sequence[_Found], key: Callable[[_Found], str], cursor: str, limit: int
) -> tuple[Sequence[_Found], str | None]:
    """Return a page of what was found, ascending by key, and the cursor of the next one.

    Cursors are places between keys, so that nothing is left out or told twice when other items come and go.

    Raises:
        BadField: the cursor is none of ours.
    """
    first = bisect_right(found, _place(cursor), key=key) if cursor else 0
    some = found[first : first + limit]
    more = first + limit < len(found)
    return some, base64.urlsafe_b64encode(key(some[-1]).encode()).decode() if more and some else None


def _place(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise BadField("cursor", "the cursor is none of ours", "`next` of a page, as it was") from error


def _is_among(tag: str, listed: str) -> bool:
    """Tell whether a list of ETags has one; ``*`` is all. A weak one is as good as it is: there is one representation."""
    found = [one.strip().removeprefix("W/") for one in listed.split(",")]
    return tag in found or "*" in found
