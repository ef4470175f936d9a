"""A program that uses the API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """Why it was refused."""
        assert self.headers["content-type"] == "application/problem+json", self.body[:500]
        assert self.json["status"] == self.status
        return str(self.json["detail"])


class Program:
    """Sends requests with a token, or without."""

    def __init__(self, client: aiohttp.ClientSession, url: str, token: str = "") -> None:
        self.token = token
        self._client = client
        self._url = url + "/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; ``if_match`` is the header If-Match."""
        sent = {name.replace("_", "-").title(): value for name, value in headers.items()}
        if body is not None:
            sent["Content-Type"] = "application/json"
        return await self.send(method, path, None if body is None else json.dumps(body).encode(), **sent)

    async def send(self, method: str, path: str, body: bytes | None, **headers: str) -> Answer:
        """Send bytes."""
        sent = {"Content-Type": "application/json"} | self._headers | headers
        async with self._client.request(method, self._url + path, data=body, headers=sent, allow_redirects=False) as answer:
            return Answer(answer.status, {key.lower(): value for key, value in answer.headers.items()}, await answer.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, **headers)

    async def put(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.ask("PUT", path, body, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.ask("POST", path, body, **headers)

    async def patch(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.ask("PATCH", path, body, **headers)

    async def delete(self, path: str, **headers: str) -> Answer:
        return await self.ask("DELETE", path, **headers)
