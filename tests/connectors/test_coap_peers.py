"""Other people's CoAP clients: libcoap's, npm's and aiocoap's."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiocoap
import psutil
import pytest

from tests.conftest import missing
from tests.support.certificates import Authority
from tests.support.coap import listening, reading, readings_kept
from tests.support.intake import Bench

NODE = Path(__file__).parent.parent / "peers/node"
MANY = json.dumps([{"n": "room/t", "v": value} for value in range(2_000)]).encode()


async def run(command: list[str]) -> str:
    """Run a command and return what it prints."""
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def uri(bench: Bench, scheme: str = "coap", path: str = "/readings") -> str:
    port = bench.settings.coap_tcp_port if scheme == "coap+tcp" else bench.settings.coap_port
    return f"{scheme}://127.0.0.1:{port}{path}"


@pytest.mark.parametrize("payload", [reading(), MANY], ids=["one reading", "many readings"])
@pytest.mark.parametrize("options", [[], ["-N"], ["-b", "64"]], ids=["con", "non", "blocks of 64"])
@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
async def test_libcoap(payload: bytes, options: list[str], scheme: str, tool: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.write_bytes(payload)
    command = [tool("coap-client-notls"), "-v", "6", "-B", "10", *options, "-m", "post", "-t", "110", "-f", str(file)]
    async with listening() as bench:
        said = await run([*command, uri(bench, scheme)])
        assert "2.04" in said, said
        assert readings_kept(bench) == payload.count(b'"n"')


async def test_libcoap_is_told_what_is_wrong(tool: Callable[..., str]) -> None:
    command = [tool("coap-client-notls"), "-v", "6", "-B", "10", "-m", "post"]
    async with listening() as bench:
        for options, path, expected in (
            (["-t", "110", "-e", "junk"], "/readings", "4.00 1 refused, 0 kept; malformed"),
            (["-t", "41", "-e", "<x/>"], "/readings", "4.15"),
            (["-t", "110", "-e", "[]"], "/elsewhere", "4.04"),
            (["-t", "110", "-e", "x", "-O", "9,0x01"], "/readings", "4.02"),
        ):
            for scheme in ("coap", "coap+tcp"):
                assert expected in await run([*command, *options, uri(bench, scheme, path)])


async def test_libcoap_finds_the_resource(tool: Callable[..., str]) -> None:
    async with listening() as bench:
        for scheme in ("coap", "coap+tcp"):
            found = await run([tool("coap-client-notls"), "-B", "10", uri(bench, scheme, "/.well-known/core")])
            assert '</readings>;rt="isotherm.readings"' in found


async def test_libcoap_over_tls(tool: Callable[..., str], tmp_path: Path) -> None:
    authority = Authority(tmp_path, tool("openssl"))
    server, room = authority.sign("localhost", "DNS:localhost"), authority.sign("room", "DNS:room-1")
    files: dict[str, Any] = {
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "tls_client_ca": authority.certificate,
    }
    keys = ["-C", str(authority.certificate), "-c", str(room.certificate), "-j", str(room.key)]
    command = [
        tool("coap-client-openssl"),
        "-v",
        "6",
        "-B",
        "10",
        *keys,
        "-m",
        "post",
        "-t",
        "110",
        "-e",
        reading("t").decode(),
    ]
    async with listening(auth="token", **files) as bench:
        said = await run([*command, f"coaps+tcp://localhost:{bench.settings.coap_tls_port}/readings"])
        assert "2.04" in said, said
    assert bench.producer.values_of("room-1/t") == [1]


@pytest.mark.parametrize("payload", [reading(), MANY], ids=["one reading", "many readings"])
async def test_libcoap_over_dtls_that_a_proxy_ends(payload: bytes, tool: Callable[..., str], tmp_path: Path) -> None:
    """What the README says of DTLS."""
    file = tmp_path / "payload"
    file.write_bytes(payload)
    async with listening() as bench:
        port = bench.settings.coap_port + 3  # and the next one for DTLS
        serve = ["-A", "127.0.0.1", "-p", str(port), "-P", ",coap.example", "-k", "key", "-h", "hint"]
        proxy = await asyncio.create_subprocess_exec(tool("coap-server-openssl"), *serve, stderr=asyncio.subprocess.DEVNULL)
        try:
            while not any(one.laddr.port == port + 1 for one in psutil.Process(proxy.pid).net_connections("udp")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # another process's progress: there is no event to wait for
            command = [tool("coap-client-openssl"), "-v", "6", "-B", "10", "-u", "name", "-k", "key"]
            command += ["-P", f"coaps://127.0.0.1:{port + 1}", "-m", "post", "-t", "110", "-f", str(file)]
            said = await run([*command, uri(bench)])
            assert "2.04" in said, said
        finally:
            proxy.kill()
            await proxy.wait()
    assert readings_kept(bench) == payload.count(b'"n"')


@pytest.mark.parametrize("payload", [reading(), MANY], ids=["one reading", "many readings"])
@pytest.mark.parametrize("kind", ["con", "non"])
async def test_npm_coap(payload: bytes, kind: str, tool: Callable[..., str], tmp_path: Path) -> None:
    if not (NODE / "node_modules/coap").is_dir():
        missing("the npm package coap is not installed; see tests/prepare.sh")
    file = tmp_path / "payload"
    file.write_bytes(payload)
    async with listening() as bench:
        said = await run([tool("node"), str(NODE / "post.js"), uri(bench), kind, "110", str(file)])
        assert said.startswith("2.04"), said
        assert readings_kept(bench) == payload.count(b'"n"')


@pytest.mark.parametrize("payload", [reading(), MANY], ids=["one reading", "many readings"])
@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
async def test_aiocoap(payload: bytes, scheme: str) -> None:
    async with listening() as bench:
        context = await aiocoap.Context.create_client_context(transports=["udp6", "tcpclient"])
        try:
            request = aiocoap.Message(code=aiocoap.POST, uri=uri(bench, scheme), payload=payload, content_format=110)
            assert (await context.request(request).response).code == aiocoap.CHANGED
            links = aiocoap.Message(code=aiocoap.GET, uri=uri(bench, scheme, "/.well-known/core"))
            assert b"isotherm.readings" in (await context.request(links).response).payload
        finally:
            await context.shutdown()
    assert readings_kept(bench) == payload.count(b'"n"')
