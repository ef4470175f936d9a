"""The guard of the ASGI app, and the same promises kept by the real process."""

import asyncio
import http.client
from collections.abc import MutableMapping
from typing import Any

import pytest

from dashboards.guard import Guard, Receive, Scope, Send
from isotherm.settings import Settings
from tests.dashboards.stack import Web


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def answer(kind: str, host: str, *, bound: str = "127.0.0.1", origin: str | None = None, query: str = "") -> str:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin is not None else [])
    scope = {"type": kind, "path": "/", "headers": headers, "query_string": query.encode()}
    await Guard(app, host=bound)(scope, receive, send)
    return str(sent[0].get("status", sent[0]["type"]))


@pytest.mark.parametrize("host", ["127.0.0.1:7300", "localhost:7300", "LOCALHOST", "[::1]:7300", "iot.localhost"])
async def test_this_machine_is_served(host: str) -> None:
    assert await answer("http", host) == "200"


@pytest.mark.parametrize("host", ["evil.example:7300", "127.0.0.1.evil", "10.0.0.4:7300", "", "[", "localhost.evil"])
async def test_a_name_that_was_rebound_to_loopback_is_refused(host: str) -> None:
    assert await answer("http", host) == "403"
    assert await answer("websocket", host, origin=f"http://{host}") == "websocket.close"


async def test_a_server_of_a_network_is_served_by_any_name() -> None:
    assert await answer("http", "iot.example", bound="0.0.0.0") == "200"
    assert await answer("websocket", "iot.example", bound="0.0.0.0", origin="https://iot.example") == "websocket.accept"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9999", "http://127.0.0.1:7300.evil.example", "null", "", None]
)
async def test_a_foreign_page_gets_no_websocket(origin: str | None) -> None:
    assert await answer("websocket", "127.0.0.1:7300", origin=origin) == "websocket.close"


async def test_our_page_gets_a_websocket() -> None:
    assert await answer("websocket", "127.0.0.1:7300", origin="http://127.0.0.1:7300") == "websocket.accept"


@pytest.mark.parametrize("query", ["bokeh-session-id=x", "bokeh_session_id=x"])
async def test_a_browser_does_not_name_its_session(query: str) -> None:
    assert await answer("http", "localhost", query=query) == "403"


@pytest.mark.servers
async def test_the_process_keeps_these_promises(settings: Settings, web: Web) -> None:
    def ask(host: str | None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(settings.host, settings.web_port, timeout=10)
        connection.request("GET", "/ws" if headers else "/", headers={**({"Host": host} if host else {}), **headers})
        return connection.getresponse()

    page = await asyncio.to_thread(ask, None)
    assert page.status == 200
    assert "frame-ancestors 'none'" in (page.getheader("content-security-policy") or "")
    assert page.getheader("x-content-type-options") == "nosniff"
    assert page.getheader("cache-control") == "no-cache"
    assert (await asyncio.to_thread(ask, "evil.example")).status == 403
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    foreign = {**upgrade, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": "http://evil.example"}
    assert (await asyncio.to_thread(ask, None, **foreign)).status == 403
