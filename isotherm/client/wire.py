"""Requests and answers as httpx2 has them; what both clients say to it. No I/O."""

from __future__ import annotations

from typing import Any

import httpx2

from isotherm import __version__
from isotherm.client.exchange import Answer, NoAnswer, Request

DEFAULT_URL = "http://127.0.0.1:7300"
API = "/api/v1"

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 10.0

PATIENCE_SECONDS = 30.0
STREAM_PATIENCE_SECONDS = 600.0

_BEFORE_SENDING = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class Wire:
    """How one platform is spoken to.

    Attributes:
        options: Of httpx2's clients.
    """

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        """Prepare; see `isotherm.client.Client`.

        Raises:
            ValueError: the URL is none.
        """
        place = httpx2.URL(url) if url.startswith(("http://", "https://")) else None
        if place is None or not place.host:
            raise ValueError(f"the URL is {url!r}, expected http://HOST:PORT or https://HOST")
        headers = {"accept": "application/json", "user-agent": f"isotherm-client/{__version__}"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._url = url.rstrip("/") + API
        self._timeout = timeout
        self.options: dict[str, Any] = {"headers": headers, "timeout": httpx2.Timeout(timeout, connect=CONNECT_SECONDS)}

    def arguments(self, request: Request, *, silence: float | None = None) -> dict[str, Any]:
        """Return a request as httpx2's arguments; ``silence`` is how long nothing may come, s."""
        kind = {} if request.body is None else {"content-type": "application/json"}
        found: dict[str, Any] = {
            "method": request.method,
            "url": self._url + request.path,
            "params": list(request.query),
            "headers": {**kind, **{name.replace("_", "-"): value for name, value in request.headers.items()}},
            "content": request.body,
        }
        if silence is not None:
            found["timeout"] = httpx2.Timeout(self._timeout, connect=CONNECT_SECONDS, read=silence)
        return found

    def answer(self, response: httpx2.Response) -> Answer:
        """Return an answer that was read."""
        return Answer(response.status_code, _headers(response), response.content)

    def head(self, response: httpx2.Response) -> Answer:
        """Return an answer whose body is still to come."""
        return Answer(response.status_code, _headers(response), b"")

    def no_answer(self, error: httpx2.RequestError) -> NoAnswer:
        """Return why nothing came."""
        why = f"{self._url} does not answer: {type(error).__name__}{f': {error}' if str(error) else ''}"
        return NoAnswer(why, was_sent=not isinstance(error, _BEFORE_SENDING))


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
