"""A request that is sent again with its Idempotency-Key is done once (draft-ietf-httpapi-idempotency-key-header).

    | key                       | type | content                                                                |
    |---------------------------|------|------------------------------------------------------------------------|
    | ``iso:{api}:once:HASH``   | hash | request (its hash), began and until (µs), state; status, kind, headers |
    |                           |      | and body of the answer; kept KEPT_SECONDS                              |

HASH is of who asks, the address and the key, so nobody is answered what another has done. What was refused is forgotten: it
may be tried again. Of what was not answered, because a server was away, nobody knows whether it was done: trying that again
makes the same thing, with the same id (`made_of`), and not another one. An answer with a secret (no-store) is not kept: who
asks again is told that it was done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from dashboards.api.problems import Conflict
from dashboards.visitor import visitor_of
from isotherm.clock import now_us
from isotherm.commands.command import id_of
from isotherm.errors import BadField, IsothermError, Unavailable
from isotherm.limits import SECOND
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script, pairs

KEPT_SECONDS = 86_400
WORKING_SECONDS = 60
"""How long a request that has not ended keeps others with its key out."""

MAX_KEY_CHARS = 200

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=MAX_KEY_CHARS,
        description="Any text that no other request has: sent again with it, this is done once.",
    ),
]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_METHODS = {"POST", "PATCH"}
"""Those that cannot be sent again as they are; PUT and DELETE can."""

_REFUSALS = (IsothermError, HTTPException, RequestValidationError)
"""What ends a request before anything was done, but for Unavailable."""

_KEPT_HEADERS = ("location", "etag", "cache-control")


@dataclass(frozen=True, slots=True)
class Made:
    """What a request makes: the same whenever it is sent again with its key.

    Attributes:
        id: Of it.
        created: When the request came first, µs since the epoch UTC.
    """

    id: str
    created: int


def made_of(request: Request) -> Made:
    """Return the id and time of what a request makes."""
    found: Made = getattr(request.state, "made", None) or _new(now_us())
    return found


class Once:
    """Remembers what was done under which key."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._begin = Script(redis, "once.lua", package="dashboards.api")

    def route(self) -> type[APIRoute]:
        """Return the class of routes that are done once."""
        once = self

        class OnceRoute(APIRoute):
            def get_route_handler(self) -> Handler:
                handler = super().get_route_handler()

                async def handle(request: Request) -> Response:
                    key = request.headers.get("idempotency-key")
                    if not key or request.method not in _METHODS:
                        return await handler(request)
                    return await once.handle(request, key, handler)

                return handle

        return OnceRoute

    async def handle(self, request: Request, key: str, handler: Handler) -> Response:
        """Do what a request asks for, or answer as was answered to the first one with its key.

        Raises:
            BadField: the key is too long, or that of another request.
            Conflict: the first one has not ended yet, or has answered with a secret.
        """
        if len(key) > MAX_KEY_CHARS:
            raise BadField("Idempotency-Key", f"it has {len(key)} characters", f"at most {MAX_KEY_CHARS} characters")
        who = visitor_of(request.headers)
        hashed = _hash(who.name, who.session, request.method, request.url.path, key)
        name = f"iso:{{api}}:once:{hashed}"
        asked = _hash(request.url.query, request.headers.get("if-match", ""), (await request.body()).hex())
        with answering():
            is_first, fields = await self._begin([name], [asked, now_us(), WORKING_SECONDS * SECOND, KEPT_SECONDS])
        known = pairs(fields)
        if not is_first:
            return _again(known, asked)
        began = int(known[b"began"])
        request.state.made = Made(id_of(began, hashed), began)
        try:
            response = await handler(request)
        except BaseException as error:
            await self._let_go(name, is_refused=isinstance(error, _REFUSALS) and not isinstance(error, Unavailable))
            raise
        await self._keep(name, response)
        return response

    async def _let_go(self, name: str, *, is_refused: bool) -> None:
        """Let it be tried again: as something new when it was refused, and else as the same."""
        with answering():
            if is_refused:
                await self._redis.delete(name)
            else:
                await self._redis.hset(name, mapping={"state": "open"})

    async def _keep(self, name: str, response: Response) -> None:
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            await self._let_go(name, is_refused=response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        is_secret = response.headers.get("cache-control") == "no-store"
        headers = {header: response.headers[header] for header in _KEPT_HEADERS if header in response.headers}
        fields: dict[str, str | int] = {"state": "secret" if is_secret else "done"}
        if not is_secret:
            fields |= {
                "status": int(response.status_code),
                "kind": response.media_type or "",
                "headers": msgspec.json.encode(headers).decode(),
                "body": bytes(response.body).decode(),
            }
        with answering():
            await self._redis.hset(name, mapping=fields)


def _again(known: dict[bytes, bytes], asked: str) -> Response:
    if known[b"request"].decode() != asked:
        raise BadField("Idempotency-Key", "another request had this Idempotency-Key", "a key that no other request has had")
    match known[b"state"]:
        case b"done":
            headers = {**msgspec.json.decode(known[b"headers"], type=dict[str, str]), "idempotency-replayed": "true"}
            return Response(known[b"body"], int(known[b"status"]), headers, known[b"kind"].decode() or None)
        case b"secret":
            raise Conflict(
                "this was done under its Idempotency-Key before, and a secret is shown once: revoke it if it was lost"
            )
        case _:
            raise Conflict("the first request with this Idempotency-Key has not ended yet; try again in a moment")


def _new(now: int) -> Made:
    return Made(id_of(now), now)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
