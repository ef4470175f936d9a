"""Firmware as devices load it: in ranges over HTTP, in blocks over CoAP."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator

import aiocoap
import pytest
from aiohttp import ClientSession

from connectors import coap, http
from isotherm.firmware import Image, signing
from isotherm.store.client import Client
from tests.contracts.commands import dispatching
from tests.support.intake import Bench
from tests.support.ports import free_port

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

DATA = bytes(number * 7 % 251 for number in range(200_000))
PATH = "/api/v1/firmware/lamp/1.2.0"
TOKEN = {"authorization": "Bearer s-room-1"}


@pytest.fixture
async def bench(redis: Client) -> AsyncIterator[Bench]:
    async with dispatching(redis, auth="token", coap_port=free_port()) as bench:
        bench.registry.add("room-1")
        yield bench


@pytest.fixture
async def made(bench: Bench) -> Image:
    key = signing.new_key()
    await bench.site.firmware.trust(signing.public_of(key))
    return await bench.site.firmware.add(signing.signed(key, "lamp", "1.2.0", DATA), DATA, "eve")


@pytest.fixture
async def web(bench: Bench) -> AsyncIterator[ClientSession]:
    async with http.listening(bench.site) as where, ClientSession(re.findall(r"http://[0-9.]+:\d+", where)[0]) as client:
        yield client


async def test_it_is_loaded_whole_and_in_ranges(web: ClientSession, made: Image) -> None:
    async with web.get(PATH, headers=TOKEN) as answer:
        assert (answer.status, answer.headers["etag"]) == (200, f'"{made.sha256}"')
        assert await answer.read() == DATA
    got = b""
    while len(got) < made.size:
        async with web.get(PATH, headers=TOKEN | {"range": f"bytes={len(got)}-{len(got) + 70_000}"}) as answer:
            assert answer.status == 206
            assert answer.headers["content-range"].endswith(f"/{made.size}")
            got += await answer.read()
    assert hashlib.sha256(got).hexdigest() == made.sha256


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ({"range": "bytes=199990-"}, 206, DATA[199_990:]),
        ({"range": "bytes=-5"}, 206, DATA[-5:]),
        ({"range": "bytes=0-0"}, 206, DATA[:1]),
        ({"range": "bytes=0-999999999"}, 206, DATA),
        ({"range": "bytes=0-" + "9" * 5_000}, 206, DATA),
        ({"range": "bytes=-" + "9" * 5_000}, 206, DATA),
        ({"range": "bytes=" + "9" * 5_000 + "-"}, 416, None),
        ({"range": "bytes=200000-"}, 416, None),
        ({"range": "bytes=5-1"}, 416, None),
        ({"range": "bytes=-0"}, 416, None),
        ({"range": "lines=1-2"}, 416, None),
        ({"range": "bytes=\N{SUPERSCRIPT TWO}-3".encode("latin-1").decode("latin-1")}, 416, None),
        ({"range": "bytes=0-4", "if-range": '"other"'}, 200, DATA),
    ],
)
async def test_ranges(web: ClientSession, made: Image, headers: dict[str, str], status: int, expected: bytes | None) -> None:
    async with web.get(PATH, headers=TOKEN | headers) as answer:
        assert answer.status == status
        if expected is None:
            assert answer.headers["content-range"] == f"bytes */{made.size}"
        else:
            assert await answer.read() == expected


async def test_who_may_not_and_what_is_not_there(web: ClientSession, made: Image) -> None:
    for path, headers, status in (
        (PATH, {}, 401),
        (PATH, {"authorization": "Bearer other"}, 401),
        ("/api/v1/firmware/lamp/9", TOKEN, 404),
        (PATH, TOKEN | {"if-none-match": f'"{made.sha256}"'}, 304),
    ):
        async with web.get(path, headers=headers) as answer:
            assert answer.status == status
    async with web.head(PATH, headers=TOKEN) as answer:
        assert (answer.status, answer.headers["content-length"]) == (200, str(made.size))


@pytest.mark.parametrize("exponent", [None, 6, 3])
async def test_it_is_loaded_in_blocks_over_coap(bench: Bench, made: Image, exponent: int | None) -> None:
    async with coap.listening(bench.site):
        context = await aiocoap.Context.create_client_context()
        try:
            uri = f"coap://127.0.0.1:{bench.settings.coap_port}/firmware/lamp/1.2.0?token=s-room-1"
            asked = aiocoap.Message(code=aiocoap.GET, uri=uri)
            if exponent is not None:
                asked.opt.block2 = aiocoap.optiontypes.BlockOption.BlockwiseTuple(0, False, exponent)
            answer = await context.request(asked).response
            assert answer.code == aiocoap.CONTENT
            assert hashlib.sha256(answer.payload).hexdigest() == made.sha256
            for wrong, code in (
                (uri.replace("s-room-1", "other"), aiocoap.UNAUTHORIZED),
                (uri.replace("1.2.0", "9"), aiocoap.NOT_FOUND),
            ):
                refused = await context.request(aiocoap.Message(code=aiocoap.GET, uri=wrong)).response
                assert refused.code == code
        finally:
            await context.shutdown()
