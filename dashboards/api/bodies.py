"""How much a request may carry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from isotherm.firmware.image import MAX_BYTES as MAX_IMAGE_BYTES

MAX_BODY_BYTES = 2**20

FIRMWARE = "/firmware/"
"""Below it, bodies are images."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Any, Receive, Any], Awaitable[None]]


class BodyLimit:
    """Wraps an ASGI app: who sends more than a body, or an image, may have is told so, and the rest is not read."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        """Pass a request on."""
        taken = 0
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        most = MAX_IMAGE_BYTES if path.startswith(FIRMWARE) else MAX_BODY_BYTES

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {most} bytes")
            return message

        await self._app(scope, bounded, send)
