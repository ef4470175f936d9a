"""What a request may carry, and how much of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from dashboards.api.problems import BODY, answer
from isotherm.firmware.image import MAX_BYTES as MAX_IMAGE_BYTES

MAX_BODY_BYTES = 2**20

FIRMWARE = "/firmware/"
"""Below it, bodies are images."""

_CHANGES = {"POST", "PUT", "PATCH"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Any, Receive, Any], Awaitable[None]]


class BodyLimit:
    """Wraps an ASGI app: who sends more than a body, or an image, may have is told so, and the rest is not read."""

    def __init__(self, app: App, *, is_json: bool = False) -> None:
        """Prepare; ``is_json``: bodies that are no images are JSON, and said to be."""
        self._app = app
        self._is_json = is_json

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        """Pass a request on."""
        taken = 0
        is_image = scope.get("path", "").removeprefix(scope.get("root_path", "")).startswith(FIRMWARE)
        most = MAX_IMAGE_BYTES if is_image else MAX_BODY_BYTES
        if self._is_json and scope["type"] == "http" and scope["method"] in _CHANGES and not is_image:
            kind = _other_than_json(Headers(scope=scope))
            if kind is not None:
                text = f"the body is {kind[:100]!r}, expected JSON: Content-Type: application/json"
                await answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)(scope, receive, send)
                return

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if self._is_json and not is_image:
                scope.setdefault(BODY, []).append(message.get("body", b""))
            if taken > most:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {most} bytes")
            return message

        await self._app(scope, bounded, send)


def _other_than_json(headers: Headers) -> str | None:
    """Return what a body is said to be that is no JSON; None when it is, or when there is none."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return None
    kind = headers.get("content-type", "")
    name = kind.partition(";")[0].strip().lower()
    is_json = name == "application/json" or (name.startswith("application/") and name.endswith("+json"))
    return None if is_json else kind
