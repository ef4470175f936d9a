"""Somebody at a browser without JavaScript: keeps cookies as a browser on localhost does, and fills in forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import aiohttp


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    text: str
    location: str
    headers: Mapping[str, str]


class Client:
    """A client of the web process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        """Send a request; headers that are given replace those of a browser, empty ones leave them out."""
        sent = {"Origin": self.url} if method == "POST" else {}
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent["Cookie"] = self.cookie
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        async with self._session.request(
            method, self.url + path, data=body, headers=sent, allow_redirects=False
        ) as response:
            for one in response.headers.getall("Set-Cookie", []):
                name, _, value = one.partition(";")[0].partition("=")
                if "Max-Age=0" in one:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = value
            text = await response.text()
            return Answer(response.status, text, response.headers.get("Location", ""), response.headers)

    @property
    def cookie(self) -> str:
        """The Cookie header."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    async def get(self, path: str, **headers: str) -> Answer:
        """Open a page."""
        return await self.ask("GET", path, **headers)

    async def post(self, path: str, page: str, **fields: str) -> Answer:
        """Send a form with the token of a page that is opened first."""
        token = form_token((await self.get(page)).text)
        return await self.ask("POST", path, urlencode({"token": token, **fields}))

    async def log_in(self, name: str, password: str) -> Answer:
        """Fill in the log-in."""
        return await self.post("/login", "/login", name=name, password=password)

    def websocket(
        self, path: str, token: str, **headers: str
    ) -> aiohttp.client._BaseRequestContextManager[aiohttp.ClientWebSocketResponse]:
        """Open the websocket of a page."""
        sent = {"Origin": self.url, "Cookie": self.cookie} | headers
        return self._session.ws_connect(self.url + path, protocols=("bokeh", token), headers=sent)


def form_token(page: str) -> str:
    """Return the token of a page's forms."""
    found = re.search(r'name="token" value="(\w+)"', page)
    assert found, page[:2000]
    return found[1]


def bokeh_token(page: str) -> str:
    """Return the token by which a page opens its websocket."""
    found = re.search(r'"token":"([^"]+)"', page)
    assert found, page[:2000]
    return found[1]
