"""A request that is sent again with its Idempotency-Key is done once (draft-ietf-httpapi-idempotency-key-header).

    | key                       | type   | content                                                              |
    |---------------------------|--------|----------------------------------------------------------------------|
    | ``iso:{api}:once:HASH``   | string | hash of the request, status and body of its answer; kept KEPT_SECONDS |

HASH is of who asks, the address and the key, so nobody is answered what another has done. What was refused is forgotten: it
may be tried again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import Header, Request, Response
from fastapi.routing import APIRoute

from dashboards.api.problems import Conflict
from dashboards.visitor import visitor_of
from isotherm.errors import BadField
from isotherm.store.client import Client
from isotherm.store.reader import answering

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


class Done(msgspec.Struct, array_like=True):
    """What is kept: of a request that has not ended, status 0."""

    request: str
    status: int = 0
    kind: str = ""
    body: bytes = b""


class Once:
    """Remembers what was done under which key."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    def route(self) -> type[APIRoute]:
        """Return the class of routes that are done once."""
        once = self

        class OnceRoute(APIRoute):
            def get_route_handler(self) -> Handler:
                handler = super().get_route_handler()

                async def handle(request: Request) -> Response:
                    key = request.headers.get("idempotency-key")
                    if not key or request.method != "POST":
                        return await handler(request)
                    return await once.handle(request, key, handler)

                return handle

        return OnceRoute

    async def handle(self, request: Request, key: str, handler: Handler) -> Response:
        """Do what a request asks for, or answer as was answered to the first one with its key.

        Raises:
            BadField: the key is too long, or that of another request.
            Conflict: the first one has not ended yet.
        """
        if len(key) > MAX_KEY_CHARS:
            raise BadField("Idempotency-Key", f"it has {len(key)} characters", f"at most {MAX_KEY_CHARS} characters")
        who = visitor_of(request.headers)
        name = f"iso:{{api}}:once:{_hash(who.name, request.url.path, key)}"
        asked = _hash(request.url.query, (await request.body()).hex())
        with answering():
            is_first = await self._redis.set(name, msgspec.msgpack.encode(Done(asked)), nx=True, ex=WORKING_SECONDS)
            kept = None if is_first else await self._redis.get(name)
        if kept is not None:
            return _again(msgspec.msgpack.decode(kept, type=Done), asked)
        try:
            response = await handler(request)
        except BaseException:
            with answering():
                await self._redis.delete(name)
            raise
        done = Done(asked, response.status_code, response.media_type or "", bytes(response.body))
        with answering():
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                await self._redis.delete(name)
            else:
                await self._redis.set(name, msgspec.msgpack.encode(done), ex=KEPT_SECONDS)
        return response


def _again(done: Done, asked: str) -> Response:
    if done.request != asked:
        raise BadField("Idempotency-Key", "another request had this Idempotency-Key", "a key that no other request has had")
    if not done.status:
        raise Conflict("the first request with this Idempotency-Key has not ended yet; try again in a moment")
    return Response(done.body, done.status, {"idempotency-replayed": "true"}, done.kind or None)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
