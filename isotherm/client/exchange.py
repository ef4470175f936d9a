"""A request, its answer, and when to send it again. No I/O: a client sends what is yielded here, and waits when told to.

An operation is a generator that yields requests, is sent their answers, and returns what was asked for; so each is written
once, however many requests it takes, for a client that blocks and for one that awaits.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from isotherm.client.errors import ClientError, Conflict, Fault, NotUnderstood, RateLimited, Unavailable, refused
from isotherm.client.model import Page
from isotherm.clock import now_us
from isotherm.limits import SECOND

ATTEMPTS = 5
"""How often a request is sent at most."""

BACKOFF_SECONDS = 0.25
"""Before the second attempt; twice as long before each further one."""

MAX_BACKOFF_SECONDS = 30.0

PAGE = 1_000
"""Items that are asked for at a time."""

UNAVAILABLE = (502, 503, 504)

Got = TypeVar("Got")
Item = TypeVar("Item")
Kind = TypeVar("Kind", bound=msgspec.Struct)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent.

    Attributes:
        method: HTTP's.
        path: Below ``/api/v1``, escaped.
        query: Names and values, not escaped.
        body: JSON.
        headers: Further ones.
        is_repeatable: Whether sending it twice does what sending it once does.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    is_repeatable: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(msgspec.Struct, frozen=True):
    """Nothing came back.

    Attributes:
        why: In words.
        was_sent: Whether the platform may have got the request.
    """

    why: str
    was_sent: bool


class Wait(msgspec.Struct, frozen=True):
    """Go on after so many seconds."""

    seconds: float


Steps = Generator[Request, Answer, Got]
Moves = Generator[Request | Wait, Answer | NoAnswer | None, Got]


class Listing(Generic[Item]):
    """A list that comes in pages."""

    def __init__(self, path: str, item: type[Item], *, size: int = 0, **query: str) -> None:
        """Prepare; ``size`` is how many items are asked for at a time, where these are fewer than PAGE."""
        self._path = path
        self._size = size
        self._page: Any = Page[item]  # type: ignore[valid-type]
        self._query = tuple((name, value) for name, value in query.items() if value)

    def page(self, cursor: str) -> Steps[Page[Item]]:
        """Return the page behind a cursor, which is empty for the first."""
        asked = [*self._query, ("limit", str(self._size or PAGE)), *([("cursor", cursor)] if cursor else [])]
        found: Page[Item] = decoded((yield got(self._path, *asked)).body, self._page)
        return found


def got(path: str, *query: tuple[str, str], **headers: str) -> Request:
    """Return a GET."""
    return Request(method="GET", path=path, query=query, headers=headers, is_repeatable=True)


def posted(path: str, body: Any, key: str) -> Request:
    """Return a POST that is done once, however often it comes, by its Idempotency-Key."""
    return Request(
        method="POST",
        path=path,
        body=msgspec.json.encode(body),
        headers={"idempotency-key": key},
        is_repeatable=True,
    )


def put(path: str, body: Any, *, etag: str = "", is_new: bool = False) -> Request:
    """Return a PUT: of what is as it was seen, of what is not there yet, or whatever there is.

    With a condition it is not repeatable: an answer that was lost would become a 412.
    """
    conditions = {"if-match": etag} if etag else {"if-none-match": "*"} if is_new else {}
    body = msgspec.json.encode(body)
    return Request(method="PUT", path=path, body=body, headers=conditions, is_repeatable=not conditions)


def patched(path: str, body: Any, etag: str = "") -> Request:
    """Return a PATCH that sets what it names: of what is as it was seen, where there is an ETag, and then not repeatable."""
    conditions = {"if-match": etag} if etag else {}
    body = msgspec.json.encode(body)
    return Request(method="PATCH", path=path, body=body, headers=conditions, is_repeatable=not conditions)


def deleted(path: str, etag: str = "") -> Request:
    """Return a DELETE, of what is as it was seen where there is an ETag."""
    return Request(method="DELETE", path=path, headers={"if-match": etag} if etag else {})


def segment(name: str) -> str:
    """Return a name as a part of an address.

    Raises:
        ValueError: it would be another address.
    """
    if name.strip(".") == "":
        raise ValueError(f"{name!r} is no name")
    return quote(name, safe=":")


def decoded(body: bytes, kind: type[Got]) -> Got:
    """Decode an answer.

    Raises:
        NotUnderstood: it is none of Isotherm's.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotUnderstood(f"the answer is none of Isotherm's API: {error}; it begins {body[:80]!r}") from error


def tagged(answer: Answer, kind: type[Kind]) -> Kind:
    """Decode a representation that has an ETag."""
    found = decoded(answer.body, kind)
    return msgspec.structs.replace(found, etag=answer.headers.get("etag", ""))


def attempted(steps: Steps[Got], patience: float) -> Moves[Got]:
    """Go through the steps of an operation, each request as often as is sensible, for ``patience`` s of waiting each.

    Raises:
        ClientError: of the last attempt, if the steps do not catch it.
    """
    try:
        request = next(steps)
        while True:
            try:
                answer = yield from _answered(request, patience)
            except ClientError as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as done:
        found: Got = done.value
        return found


def check(answer: Answer | NoAnswer) -> Answer:
    """Return an answer that is a good one.

    Raises:
        ClientError: it is none.
    """
    if isinstance(answer, NoAnswer):
        raise Unavailable(answer.why)
    if 200 <= answer.status < 300:
        return answer
    raise _refusal(answer)


def backoff(failures: int) -> float:
    """Return how long to wait after so many failures in a row, s: chance keeps clients from coming all at once."""
    most = min(BACKOFF_SECONDS * 2.0 ** min(failures - 1, 20), MAX_BACKOFF_SECONDS)
    return most * random.uniform(0.5, 1.0)


def _answered(request: Request, patience: float) -> Moves[Answer]:
    for failures in range(1, ATTEMPTS + 1):
        answer = yield request
        assert answer is not None
        try:
            return check(answer)
        except (Unavailable, RateLimited, Conflict) as error:
            wait = max(backoff(failures), getattr(error, "retry_after", 0.0))
            patience -= wait
            if failures == ATTEMPTS or patience < 0 or not _may_be_repeated(request, answer, error, failures):
                raise
        yield Wait(wait)
    raise AssertionError


def _may_be_repeated(request: Request, answer: Answer | NoAnswer, error: ClientError, failures: int) -> bool:
    if isinstance(error, RateLimited) or (isinstance(answer, NoAnswer) and not answer.was_sent):
        return True  # nothing was done
    if isinstance(error, Conflict):  # the attempt whose answer was lost is still being done
        return failures > 1 and error.status == 409 and "idempotency-key" in request.headers
    return request.is_repeatable


class _Problem(msgspec.Struct):
    status: int
    detail: str
    errors: list[Fault] = []


def _refusal(answer: Answer) -> ClientError:
    """Return the error that an answer is."""
    after = _retry_after(answer.headers.get("retry-after", ""))
    detail, faults = "", list[Fault]()
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem = decoded(answer.body, _Problem)
        detail, faults = problem.detail, problem.errors
    if answer.status in UNAVAILABLE:
        return Unavailable(detail or f"status {answer.status}", after)
    if not detail and answer.status < 500 and answer.status != 429:
        return NotUnderstood(f"status {answer.status} without a problem: is this the address of Isotherm's pages?")
    return refused(answer.status, detail or answer.body[:200].decode("utf-8", "replace"), faults, after)


def _retry_after(text: str) -> float:
    """Return Retry-After (RFC 9110 §10.2.3) in s; 0 when there is none, or nothing sensible."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_us() / SECOND)
    except ValueError:
        return 0.0
