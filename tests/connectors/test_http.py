"""The HTTP connector over real sockets, with a Kafka that is switched off and on again."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cbor2
import pytest
from aiohttp import ClientSession, TCPConnector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors import http, intake
from connectors.http import bodies, resources, server
from isotherm.clock import now_us
from isotherm.limits import MAX_PACK_BYTES, MAX_REJECT_RAW_BYTES
from tests.support.certificates import Authority
from tests.support.intake import Bench

READINGS = "/api/v1/readings"
LINE = b'{"n":"a/t","v":1}\n'
gzipped = partial(gzip.compress, mtime=0)
GZIP, DEFLATE = {"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Peer:
    """A client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> Answer:
        """Return the next answer.

        Raises:
            EOFError: the connection has ended.
        """
        async with asyncio.timeout(30):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(head[0].split(" ")[1]), headers, body)

    async def ends(self) -> bool:
        """Tell whether nothing but the connection's end comes."""
        async with asyncio.timeout(30):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True


class Listener(Bench):
    """The connector, listening."""

    port: int
    tls_port: int
    session: ClientSession

    async def peer(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))

    async def post(self, body: bytes, path: str = READINGS, **headers: str) -> Answer:
        """Send a body; header names with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.post(url, data=body, headers=named, skip_auto_headers=["Content-Type"]) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())

    @property
    def reasons(self) -> list[str]:
        return [one.reason for one in self.producer.rejects]

    async def until_taken(self) -> None:
        """Return when something waits for Kafka."""
        while not self.intake.room.taken:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(**settings: Any) -> AsyncIterator[Listener]:
    listener = Listener(**({"http_tls_port": 0} | settings))
    async with (
        asyncio.timeout(30),
        listener.intake.running(),
        ClientSession(connector=TCPConnector(limit=0)) as listener.session,
        http.listening(listener.site) as where,
    ):
        listener.port, listener.tls_port = [int(port) for port in re.findall(r":(\d+)(?= |$)", where)] + [0] * (
            "s:" not in where
        )
        yield listener


def request(body: bytes, *headers: str, path: str = READINGS) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def chunked(*chunks: bytes) -> bytes:
    head = f"POST {READINGS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


# Formats.

_RECORDS = [{"bn": "a/", "n": "t", "v": 1.0}, {"n": "t", "v": 2.0}]
_SECOND = b"SECOND"
"""Stands for this second: the names of tests must be the same in every process that runs some."""


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/senml+json", json.dumps(_RECORDS).encode()),
        ("application/json; charset=utf-8", json.dumps(_RECORDS).encode()),
        ("APPLICATION/JSON", b'[{"n":"a/t","v":1},{"n":"a/t","v":2}]'),
        ("application/senml+cbor", cbor2.dumps([{-2: "a/", 0: "t", 2: 1.0}, {0: "t", 2: 2.0}])),
        ("application/cbor", cbor2.dumps([{0: "a/t", 2: 1}, {0: "a/t", 2: 2}])),
        ("application/x-ndjson", b'{"n":"a/t","v":1}\n{"n":"a/t","v":2}'),
        ("application/ndjson", b'{"n":"a/t","v":1}\r\n{"n":"a/t","v":2}\r\n'),
        ("application/jsonl", b'{"n":"a/t","v":1}\n\n{"n":"a/t","v":2}\n'),
        ("", b'{"n":"a/t","v":1}\n{"n":"a/t","v":2}\n'),
        ("text/plain", b" \n" + json.dumps(_RECORDS).encode()),
        ("text/plain; charset=utf-8", b"t,device=a value=1\nt,device=a value=2"),
        ("application/octet-stream", b"a.t 1 %s\na.t 2 %s\n" % (_SECOND, _SECOND)),
        ("application/x-www-form-urlencoded", b'{"n":"a/t","v":1}{"n":"a/t","v":2}'),
    ],
)
async def test_every_media_type_is_taken_and_without_one_the_content_shows_the_format(media_type: str, body: bytes) -> None:
    async with listening() as listener:
        body = body.replace(_SECOND, b"%d" % (now_us() // 10**6))
        answer = await listener.post(body, **({"Content-Type": media_type} if media_type else {}))
        assert (answer.status, answer.body) == (204, b"")
    assert listener.producer.values_of("a/t") == [1, 2]


@pytest.mark.parametrize("media_type", ["text/html", "application/xml", "multipart/form-data; boundary=x", "nonsense"])
async def test_another_media_type_is_refused_with_415_and_the_body_kept(media_type: str) -> None:
    async with listening() as listener:
        answer = await listener.post(LINE, Content_Type=media_type)
        assert (answer.status, answer.json["reason"]) == (415, "format")
        assert answer.headers["content-type"] == "application/problem+json"
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("format", LINE)]


async def test_an_empty_body_is_nothing_and_accepted() -> None:
    async with listening() as listener:
        assert (await listener.post(b"")).status == 204
    assert not listener.producer.rejects


# Compression.


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzipped(LINE * 2)),
        ("x-gzip", gzipped(LINE * 2)),
        ("GZIP", gzipped(LINE * 2)),
        ("gzip", gzipped(LINE) + gzipped(b"") + gzipped(LINE)),
        ("deflate", zlib.compress(LINE * 2)),
        ("identity", LINE * 2),
    ],
)
async def test_a_compressed_body_is_unpacked(coding: str, body: bytes) -> None:
    async with listening() as listener:
        assert (await listener.post(body, Content_Encoding=coding)).status == 204
    assert listener.producer.values_of("a/t") == [1, 1]


_WHOLE = gzipped(LINE * 100)


@pytest.mark.parametrize(
    ("coding", "body", "status", "reason"),
    [
        ("gzip", _WHOLE[:-1], 400, "malformed"),
        ("gzip", _WHOLE[: len(_WHOLE) // 2], 400, "malformed"),
        ("gzip", _WHOLE[:-8] + b"\0" * 8, 400, "malformed"),
        ("gzip", LINE, 400, "malformed"),
        ("gzip", gzipped(LINE) + b"rest", 400, "malformed"),
        ("gzip", gzipped(b"") * 65, 400, "malformed"),
        ("deflate", b"\xff\xff", 400, "malformed"),
        ("br", b"x", 415, "format"),
        ("gzip, gzip", gzipped(_WHOLE), 415, "format"),
        ("gzip", gzipped(bytes(MAX_PACK_BYTES + 1)), 413, "too_large"),
        ("gzip", gzipped(bytes(MAX_PACK_BYTES)) + gzipped(b"1"), 413, "too_large"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_refused_and_kept_as_it_came(
    coding: str, body: bytes, status: int, reason: str
) -> None:
    async with listening() as listener:
        answer = await listener.post(body, Content_Encoding=coding)
        assert (answer.status, answer.json["status"], answer.json["reason"]) == (status, status, reason)
        assert (await listener.post(LINE)).status == 204  # on the same connection
    assert [(one.reason, one.original, one.size) for one in listener.producer.rejects] == [(reason, body, len(body))]


async def test_a_bomb_is_not_unpacked_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counting:
        def __init__(self, window: int) -> None:
            self._inner = zlib.decompressobj(window)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal made
            assert most > 0  # 0 is no limit
            out = self._inner.decompress(data, most)
            made += len(out)
            return out

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    class Zlib:
        error, decompressobj = zlib.error, Counting

    bomb = gzipped(bytes(10_000_000))
    async with listening() as listener:
        monkeypatch.setattr(bodies, "zlib", Zlib)
        assert (await listener.post(bomb, Content_Encoding="gzip")).status == 413
    assert made == MAX_PACK_BYTES + 1
    assert [one.original for one in listener.producer.rejects] == [bomb]


# How a body comes.


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_packets_may_cut_a_chunked_request_anywhere(size: int) -> None:
    stream = chunked(LINE[:5], LINE[5:], LINE)
    async with listening() as listener:
        peer = await listener.peer()
        for i in range(0, len(stream), size):
            await peer.say(stream[i : i + size])
            await asyncio.sleep(0)
        assert (await peer.hear()).status == 204
    assert listener.producer.values_of("a/t") == [1, 1]


async def test_chunks_may_have_extensions_and_trailers() -> None:
    head = f"POST {READINGS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(head + b"%x;name=value\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(LINE), LINE))
        assert (await peer.hear()).status == 204
        await peer.say(request(LINE))
        assert (await peer.hear()).status == 204


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.sampled_from(
            [b'{"n":"a/t","v":%d}' % i for i in range(5)]
            + [
                b"",
                b"junk",
                b'{"n":"a/t"}',
                b'{"n":"a/\xc3\xa9","v":1}',
                b'[{"bn":"a/","n":"t","v":7},{"n":"t","v":8}]',
                b"\xff",
            ]
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
async def test_a_body_cut_into_any_chunks_gives_what_it_gives_at_once(lines: list[bytes], cuts: list[int]) -> None:
    body = b"\n".join(lines)
    bounds = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[a:b] for a, b in pairwise(bounds)]
    results = []
    async with listening() as listener:
        for stream in (request(body, "Content-Type: application/x-ndjson"),
                       chunked(*chunks).replace(b"Host: x", b"Content-Type: application/x-ndjson\r\nHost: x")):  # fmt: skip
            peer = await listener.peer()
            await peer.say(stream)
            answer = await peer.hear()
            refused = [(one.reason, one.original, one.count) for one in listener.producer.rejects]
            results.append((answer.status, answer.body, listener.producer.values_of("a/t"), refused))
            listener.producer.packs.clear()
            listener.producer.rejects.clear()
    assert results[0] == results[1]


async def test_a_connection_is_kept_for_further_requests() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        for i in range(3):
            await peer.say(request(b'{"n":"a/t","v":%d}' % i))
            assert (await peer.hear()).status == 204
            await peer.say(request(b"junk"))
            assert (await peer.hear()).status == 400
        await peer.say(request(LINE, "Connection: close"))
        assert (await peer.hear()).status == 204
        assert await peer.ends()
    assert listener.producer.values_of("a/t") == [0, 1, 2, 1]


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        bodies = [b'{"n":"a/t","v":%d}' % i if i % 3 else b"junk" for i in range(100)]
        await peer.say(b"".join(map(request, bodies)))
        assert [(await peer.hear()).status for _ in bodies] == [204 if i % 3 else 400 for i in range(100)]
    assert listener.producer.values_of("a/t") == [i for i in range(100) if i % 3]


async def test_an_old_client_is_answered_and_closed() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(request(LINE).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await peer.hear()).status == 204
        assert await peer.ends()


# Expect: 100-continue.


def asking(size: int, *headers: str, path: str = READINGS, expect: str = "100-continue") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Expect: {expect}", *headers, f"Content-Length: {size}", "", ""]
    return "\r\n".join(head).encode()


async def test_who_asks_before_the_body_is_bidden_to_continue() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        for _ in range(2):
            await peer.say(asking(len(LINE), expect="100-Continue"))
            assert (await peer.hear()).status == 100
            await peer.say(LINE)
            assert (await peer.hear()).status == 204
    assert listener.producer.values_of("a/t") == [1, 1]


@pytest.mark.parametrize("path", [READINGS, "/api/v2/write", "/write"])
@pytest.mark.parametrize(
    ("size", "expect", "token", "status", "reason"),
    [
        (len(LINE), "100-continue", "wrong", 401, "auth"),
        (MAX_PACK_BYTES + 1, "100-continue", "s-a", 413, "too_large"),
        (len(LINE), "wonders", "s-a", 417, "malformed"),
    ],
)
async def test_who_asks_before_the_body_is_told_when_it_would_be_refused_and_that_is_counted(
    path: str, size: int, expect: str, token: str, status: int, reason: str
) -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer()
        await peer.say(asking(size, f"Authorization: Bearer {token}", path=path, expect=expect))
        answer = await peer.hear()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert ("www-authenticate" in answer.headers) == (status == 401)
        peer.writer.write_eof()
        assert await peer.ends()
    assert [(one.reason, one.original, one.size) for one in listener.producer.rejects] == [(reason, b"", size)]


async def test_who_asks_while_the_registry_is_away_is_told_to_come_again() -> None:
    async with listening(auth="token") as listener:
        listener.registry.is_away = True
        peer = await listener.peer()
        await peer.say(asking(len(LINE), "Authorization: Bearer s-a"))
        answer = await peer.hear()
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")


# Bodies that are too large, too slow, or end early.


@pytest.mark.parametrize("path", [READINGS, "/api/v2/write"])
async def test_a_body_that_does_not_come_is_refused_and_what_came_is_kept(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(request(LINE + b"x", path=path)[:-1])
        answer = await peer.hear()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert "did not come" in (answer.json.get("detail") or answer.json["message"])
        peer.writer.write_eof()
        assert await peer.ends()
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("malformed", LINE)]


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    async with listening() as listener:
        assert (await listener.post(LINE + b" " * (MAX_PACK_BYTES - len(LINE)))).status == 204
    assert listener.producer.values_of("a/t") == [1]


@pytest.mark.parametrize("form", ["length", "chunked"])
async def test_a_body_that_is_too_large_is_refused_and_the_connection_closed_when_it_is_answered(form: str) -> None:
    body = b"x" * (MAX_PACK_BYTES + 200_000)
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(request(body) if form == "length" else chunked(body, body))
        answer = await peer.hear()
        assert (answer.status, answer.json["reason"]) == (413, "too_large")
        if answer.headers.get("connection") == "close":
            assert await peer.ends()
        assert (await listener.post(LINE)).status == 204
    [kept] = listener.producer.rejects
    assert (kept.reason, kept.original, kept.is_whole) == ("too_large", body[:MAX_REJECT_RAW_BYTES], False)
    assert kept.size >= MAX_PACK_BYTES


async def test_a_body_that_never_ends_is_refused_before_it_is_read_whole() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(f"POST {READINGS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        endless = asyncio.create_task(_endless(peer))
        answer = await peer.hear()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        endless.cancel()
        assert (await listener.post(LINE)).status == 204


async def _endless(peer: Peer) -> None:
    while True:
        await peer.say(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")


async def test_a_body_that_breaks_off_is_kept_as_a_reject(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(asking(2 * len(LINE)))
        assert (await peer.hear()).status == 100
        await peer.say(LINE)
        peer.writer.close()
        while not listener.producer.rejects:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert (await listener.post(LINE)).status == 204
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("malformed", LINE)]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_chunk_that_is_damaged_is_refused_once_and_what_came_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(chunked(LINE).partition(b"\r\n\r\n")[0] + b"\r\nExpect: 100-continue\r\n\r\n")
        assert (await peer.hear()).status == 100
        await peer.say(b"%x\r\n%s\r\nnonsense\r\n" % (len(LINE), LINE))
        answer = await peer.hear()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await peer.ends()
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("malformed", LINE)]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_bodies_that_are_held_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 100_000)
    async with listening() as listener:
        slow = await listener.peer()
        await slow.say(request(LINE + b" " * 90_000)[:-1])
        async with asyncio.timeout(30):
            while (answer := await listener.post(b" " * 20_000)).status == 204:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        await slow.say(b" ")
        assert (await slow.hear()).status == 204
        assert (await listener.post(LINE + b" " * 20_000)).status == 204


# What is refused, and how that is told.


async def test_bad_readings_are_named_and_the_good_ones_kept() -> None:
    lines = [b'{"n":"a/t","v":1}', b'{"n":"a/t","v":"x"}', b"junk", b'{"n":"a/t","v":2}', b'{"n":"t","v":3}']
    async with listening() as listener:
        answer = await listener.post(b"\n".join(lines), Content_Type="application/x-ndjson")
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        told = answer.json
        assert (told["type"], told["title"], told["status"]) == ("about:blank", "Readings were refused", 400)
        assert (told["accepted"], told["rejected"], told["reason"]) == (2, 3, told["errors"][0]["reason"])
        named = sorted((one["at"], one["reason"], one["reading"]) for one in told["errors"])
        assert named == [
            (2, "type", lines[1].decode()),
            (3, "malformed", "junk"),
            (5, "no_device", lines[4].decode()),
        ]
        assert all(one["detail"] for one in told["errors"])
    assert listener.producer.values_of("a/t") == [1, 2]
    assert {(one.reason, one.original) for one in listener.producer.rejects} == {
        ("type", lines[1]),
        ("malformed", lines[2]),
        ("no_device", lines[4]),
    }
    assert (listener.account.accepted, sum(listener.account.rejected.values())) == (2, 3)


async def test_records_of_an_array_are_named_by_their_place() -> None:
    async with listening() as listener:
        answer = await listener.post(b'[{"bn":"a/","n":"t","v":1},{"n":"t","v":null},{"n":"t","v":2}]')
        assert [(one["at"], one["reason"]) for one in answer.json["errors"]] == [(2, "no_value")]
    assert listener.producer.values_of("a/t") == [1, 2]


async def test_bytes_that_are_no_text_are_quoted_and_kept_as_they_are() -> None:
    async with listening() as listener:
        answer = await listener.post(b"\xff\xfe\x00\n")
        assert answer.json["errors"][0]["reading"] == "��\0"
    assert [one.original for one in listener.producer.rejects] == [b"\xff\xfe\x00"]


async def test_many_refusals_are_counted_and_the_first_are_told_shortened() -> None:
    async with listening() as listener:
        answer = await listener.post(b"\n".join([b"x" * 5_000] * 50), Content_Type="application/x-ndjson")
        told = answer.json
        assert (told["rejected"], len(told["errors"])) == (50, 20)
        assert told["errors"][0]["reading"] == "x" * 200 + "…"
        assert len(answer.body) < 20_000
    assert listener.account.rejected == {"malformed": 50}


async def test_more_readings_than_a_payload_may_have_are_refused() -> None:
    async with listening() as listener:
        answer = await listener.post(b"[" + b",".join([b'{"n":"a/t","v":1}'] * 10_001) + b"]")
        assert (answer.status, answer.json["reason"]) == (400, "too_large")


async def test_a_clock_that_is_ahead_is_told() -> None:
    async with listening() as listener:
        answer = await listener.post(b'{"n":"a/t","v":1,"t":%d}\n{"n":"a/t","v":2}' % (now_us() // 10**6 + 60))
        assert (answer.status, answer.headers["isotherm-skewed"]) == (204, "1")
        assert "isotherm-skewed" not in (await listener.post(LINE)).headers


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/", 404, None),
        ("GET", "/%ff%00", 404, None),
        ("POST", "/api/v1/nothing", 404, None),
        ("GET", READINGS, 405, "POST"),
        ("DELETE", "/api/v2/write", 405, "POST"),
        ("POST", "/ping", 405, "GET,HEAD"),
        ("GET", "/api/v1/ws", 400, None),
    ],
)
async def test_what_is_not_there_is_a_problem(method: str, path: str, status: int, allowed: str | None) -> None:
    async with listening() as listener:
        answer = await listener.get(path, method)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert (answer.json["status"], answer.headers.get("allow")) == (status, allowed)
        assert method in answer.json["detail"]


# Who a peer is.


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("query", "authorization"),
    [
        ("", "Bearer s-a"),
        ("", "bearer  s-a "),
        ("", "Token s-a"),
        ("", _basic("a", "s-a")),
        ("", _basic("", "s-a")),
        ("?token=s-a", None),
        ("?u=a&p=s-a", None),
        ("?device=a", "Bearer s-a"),
    ],
)
async def test_a_token_says_which_device_it_is(query: str, authorization: str | None) -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        headers = {"Authorization": authorization} if authorization else {}
        assert (await listener.post(b'{"n":"t","v":1}', READINGS + query, **headers)).status == 204
    assert listener.producer.values_of("a/t") == [1]


@pytest.mark.parametrize(
    ("query", "authorization"),
    [
        ("", None),
        ("", "Bearer wrong"),
        ("", "Bearer"),
        ("", "s-a"),
        ("", "Digest s-a"),
        ("", "Basic s-a"),
        ("", "Basic ####"),
        ("", "Basic \u00e9"),
        ("", "Bearer \u00e9\u20ac"),
        ("", _basic("s-a", "")),
        ("?token=wrong", None),
        ("?token=%ff%00", None),
        ("?token=s-a", "Bearer wrong"),
        ("?device=b", "Bearer s-a"),
        ("?device=%ff", "Bearer s-a"),
        ("?device=no name", "Bearer s-a"),
    ],
)
@pytest.mark.parametrize("path", [READINGS, "/api/v2/write"])
async def test_without_a_valid_token_a_request_is_refused_and_kept(path: str, query: str, authorization: str | None) -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        listener.registry.add("b")
        answer = await listener.post(LINE, path + query, **({"Authorization": authorization} if authorization else {}))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="isotherm"')
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("auth", LINE)]
    assert listener.producer.values_of("a/t") == []


async def test_header_bytes_that_are_no_text_are_refused_like_others() -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer()
        for header, status in [(b"Authorization: Bearer \xff\xfe", 401), (b"Content-Type: \xff", 415)]:
            good = b"" if status == 401 else b"Authorization: Bearer s-a\r\n"
            await peer.say(request(LINE).replace(b"Host: x", b"Host: x\r\n" + good + header))
            assert (await peer.hear()).status == status


async def test_of_a_stranger_only_the_head_is_kept() -> None:
    body = b"x" * (MAX_REJECT_RAW_BYTES * 4)
    async with listening(auth="token") as listener:
        peer = await listener.peer()
        await peer.say(request(body))
        assert (await peer.hear()).status == 401
        assert (await listener.post(LINE)).status == 401
    first = listener.producer.rejects[0]
    assert (first.reason, first.original, first.size) == ("auth", body[:MAX_REJECT_RAW_BYTES], len(body))


async def test_a_device_speaks_for_itself_and_a_gateway_for_its_children() -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        listener.registry.add("gw", "child")
        answer = await listener.post(b'{"n":"t","v":1}\n{"n":"child/t","v":2}', Authorization="Bearer s-a")
        assert (answer.status, answer.json["accepted"]) == (400, 1)
        assert [(one["reason"], one["at"]) for one in answer.json["errors"]] == [("identity", 2)]
        two = b'{"n":"child/t","v":3}\n{"n":"gw/t","v":4}'
        assert (await listener.post(two, Authorization="Bearer s-gw")).status == 204
        as_child = READINGS + "?device=child"
        assert (await listener.post(b'{"n":"t","v":5}', as_child, Authorization="Bearer s-gw")).status == 204
        assert (await listener.post(b"t value=6", "/write", Authorization="Bearer s-a")).status == 400  # Influx names it
    assert listener.producer.values_of("a/t") == [1]
    assert listener.producer.values_of("child/t") == [3, 5]
    assert listener.producer.values_of("gw/t") == [4]
    assert listener.reasons == ["identity", "no_device"]


async def test_where_everybody_may_send_the_query_may_still_name_the_device() -> None:
    async with listening() as listener:
        assert (await listener.post(b'{"n":"t","v":1}', READINGS + "?device=a")).status == 204
    assert listener.producer.values_of("a/t") == [1]


async def test_while_the_registry_is_away_strangers_are_told_to_come_again() -> None:
    async with listening(auth="token") as listener:
        listener.registry.is_away = True
        for path in (READINGS, "/api/v2/write"):
            answer = await listener.post(LINE, path, Authorization="Bearer s-a")
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_a_client_certificate_says_which_device_it_is(tmp_path: Path, tool: Callable[..., str]) -> None:
    authority = Authority(tmp_path, tool("openssl"))
    server = authority.sign("server", "IP:127.0.0.1")
    device = authority.sign("device", "DNS:a")
    files = {"tls_certificate": server.certificate, "tls_key": server.key, "tls_client_ca": authority.certificate}
    async with listening(auth="token", **files) as listener:
        context = ssl.create_default_context(cafile=authority.certificate)
        url = f"https://127.0.0.1:{listener.tls_port}{READINGS}"
        with pytest.raises((ssl.SSLError, OSError)):
            async with listener.session.post(url, data=LINE, ssl=context):
                pass
        context.load_cert_chain(device.certificate, device.key)
        async with listener.session.post(url, data=b'{"n":"t","v":1}\n{"n":"b/t","v":2}', ssl=context) as answer:
            told = json.loads(await answer.read())
        assert [one["reason"] for one in told["errors"]] == ["identity"]
        assert (await listener.post(LINE)).status == 401  # the other port knows no certificates
    assert listener.producer.values_of("a/t") == [1]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://["])
async def test_where_everybody_may_send_pages_of_others_may_not(origin: str) -> None:
    async with listening() as listener:
        assert (await listener.post(LINE, Origin=origin)).status == 403
        assert (await listener.post(LINE, Origin=f"http://localhost:{listener.port}")).status == 204
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        assert (await listener.post(LINE, Origin=origin, Authorization="Bearer s-a")).status == 204


# InfluxDB's clients.

_NOW_NS = now_us() * 1000


@pytest.mark.parametrize("path", ["/write?db=x&rp=y", "/api/v2/write?org=o&bucket=b"])
@pytest.mark.parametrize(
    ("precision", "unit"),
    [
        ("", 1),
        ("ns", 1),
        ("n", 1),
        ("us", 10**3),
        ("u", 10**3),
        ("ms", 10**6),
        ("s", 10**9),
        ("m", 60 * 10**9),
        ("h", 3600 * 10**9),
    ],
)
async def test_influx_lines_have_timestamps_of_the_precision_that_is_said(path: str, precision: str, unit: int) -> None:
    async with listening() as listener:
        stamp = _NOW_NS // unit
        query = f"&precision={precision}" if precision else ""
        assert (await listener.post(b"t,device=a value=1,x=2i %d" % stamp, path + query)).status == 204
        [pack] = [pack for packs in listener.producer.packs.values() for pack in packs]
    assert sorted(pack.names) == ["a/t", "a/t/x"]
    assert set(pack.time.tolist()) == {stamp * unit // 1000}


@pytest.mark.parametrize("path", ["/write", "/api/v2/write"])
async def test_influx_clients_are_told_in_their_own_way_which_line_is_bad(path: str) -> None:
    async with listening() as listener:
        answer = await listener.post(b"t,device=a value=1\nt,device=a value=\rx\nt,device=a value=2", path)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        told = answer.json
        assert (told["code"], told["line"]) == ("invalid", 2)
        assert told["message"] == told["error"]
        assert "line 2" in told["message"] and "dropped=1" in told["message"]
        assert answer.headers["x-influxdb-error"].startswith("partial write: line 2")
    assert listener.producer.values_of("a/t") == [1, 2]
    assert [one.original for one in listener.producer.rejects] == [b"t,device=a value=\rx"]


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "code"),
    [
        ("?precision=fortnight", {}, LINE, 400, "invalid"),
        ("", GZIP, b"junk", 400, "invalid"),
        ("", {"Content-Encoding": "br"}, b"junk", 415, "invalid"),
        ("", DEFLATE, zlib.compress(bytes(MAX_PACK_BYTES + 1)), 413, "request too large"),
    ],
)
async def test_influx_clients_are_told_in_their_own_way_what_is_wrong(
    query: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    async with listening() as listener:
        answer = await listener.post(body, "/api/v2/write" + query, **headers)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.json["message"]
    assert [one.original for one in listener.producer.rejects] == [body]


async def test_influx_clients_find_what_they_ask_first() -> None:
    async with listening(auth="token") as listener:
        for method in ("GET", "HEAD"):
            ping = await listener.get("/ping", method)
            assert (ping.status, ping.headers["x-influxdb-version"][:9]) == (204, "isotherm-")
        health = await listener.get("/health")
        assert (health.status, health.json["status"], health.json["name"]) == (200, "pass", "isotherm")
        create = await listener.get("/query?q=CREATE%20DATABASE%20x", "POST")
        assert (create.status, create.json) == (200, {"results": [{"statement_id": 0}]})
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert (await listener.post(b"q=create+database+%22x%22", "/query", **form)).status == 200
        for asked in (b"q=DROP+DATABASE+x", b"\xff", b""):
            answer = await listener.post(asked, "/query", **form)
            assert (answer.status, answer.json["code"]) == (400, "invalid")
        assert (await listener.post(b"q=" + b"x" * 100_000, "/query", **form)).status == 413


# Kafka.


async def test_nothing_is_acknowledged_before_kafka_has_it() -> None:
    async with listening() as listener:
        listener.producer.on.clear()
        asked = asyncio.create_task(listener.post(LINE))
        await listener.until_taken()
        done, _ = await asyncio.wait({asked}, timeout=0.1)
        assert not done
        listener.producer.on.set()
        assert (await asked).status == 204


async def test_a_refusal_is_not_told_before_kafka_has_the_reject() -> None:
    async with listening() as listener:
        listener.producer.on.clear()
        asked = asyncio.create_task(listener.post(b"junk"))
        await listener.until_taken()
        done, _ = await asyncio.wait({asked}, timeout=0.1)
        assert not done
        listener.producer.on.set()
        assert (await asked).status == 400


@pytest.mark.parametrize("path", [READINGS, "/api/v2/write"])
async def test_while_kafka_is_away_a_request_is_told_to_come_again_and_later_all_is_there(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "REFUSE_SECONDS", 0.1)
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.2)
    async with listening() as listener:
        listener.producer.on.clear()
        for _ in range(5):  # the first ones wait for Kafka, the later ones are refused at once
            answer = await listener.post(b"t,device=a value=1", path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "Kafka" in (answer.json.get("detail") or answer.json["message"])
        assert listener.intake.is_away
        taken = listener.intake.room.taken
        assert taken < 5
        listener.producer.on.set()
        async with asyncio.timeout(30):
            while (await listener.post(b"t,device=a value=2", path)).status != 204:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert listener.producer.values_of("a/t") == [1] * taken + [2]


async def test_what_waits_for_room_is_not_decoded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_IN_FLIGHT", 1)
    decoded: list[bytes] = []
    async with listening() as listener:
        decoders: Any = listener.site.catalogue.decoders
        inner = decoders["ndjson"]

        def watched(data: bytes, now: int) -> Any:
            decoded.append(data)
            yield from inner(data, now)

        decoders["ndjson"] = watched
        listener.producer.on.clear()
        asked = [asyncio.create_task(listener.post(LINE * 2)) for _ in range(5)]
        done, _ = await asyncio.wait(asked, timeout=0.2)
        assert (len(decoded), len(done)) == (1, 0)
        listener.producer.on.set()
        assert [(await one).status for one in asked] == [204] * 5
    assert listener.producer.values_of("a/t") == [1] * 10


async def test_of_requests_that_came_together_each_hears_of_its_own() -> None:
    async with listening() as listener:
        old = b'{"n":"b/t","v":2,"t":3e8}\n'
        answers = await asyncio.gather(*(listener.post(body) for body in [LINE, old] * 8))
    assert [answer.status for answer in answers] == [204, 400] * 8
    assert {answer.json["reason"] for answer in answers[1::2]} == {"time"}
    assert listener.producer.values_of("a/t") == [1] * 8
    assert listener.account.accepted == 8 and listener.account.rejected == {"time": 8}


async def test_who_leaves_takes_nothing_of_the_others_with_them() -> None:
    async with listening() as listener:
        listener.producer.on.clear()
        patient = asyncio.create_task(listener.post(LINE))
        leaving = await listener.peer()
        await leaving.say(request(LINE))
        while listener.intake.room.taken < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        leaving.writer.transport.abort()
        listener.producer.on.set()
        assert (await patient).status == 204
    assert listener.producer.values_of("a/t") == [1, 1]


def test_a_refusal_comes_within_five_seconds() -> None:
    assert intake.REFUSE_SECONDS < 5 and intake.AWAY_SECONDS < 5


# What is no HTTP.


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
        LINE + b"\r\n",
        b"POST /api/v1/readings HTTP/9.9\r\n\r\n",
        b"POST /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/v1/readings HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
        b"POST /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: x\r\n" % i for i in range(1_000)) + b"\r\n",
    ],
)
async def test_what_is_no_http_is_answered_with_400_and_kept_and_closed(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening() as listener:
        other, peer = await listener.peer(), await listener.peer()
        await peer.say(garbage)
        answer = await peer.hear()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert await peer.ends()
        await other.say(request(LINE))
        assert (await other.hear()).status == 204
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("malformed", garbage)]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_what_a_handler_fails_at_is_a_problem_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bodies, "detect_body", lambda body: 1 // 0)
    async with listening() as listener:
        answer = await listener.post(LINE)
        assert (answer.status, answer.json["status"]) == (500, 500)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("begun", [b"", b"POST /api", b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_head_that_does_not_come_is_waited_for_so_long(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 0.1)
    async with listening() as listener:
        peer, later = await listener.peer(), await listener.peer()
        await peer.say(begun)
        assert await peer.ends()
        assert await later.ends()


async def test_a_connection_that_was_used_is_closed_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 0.1)
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(request(LINE))
        assert (await peer.hear()).status == 204
        assert await peer.ends()


async def test_a_peer_that_reads_no_answers_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 0.1)
    async with listening() as listener:
        peer = await listener.peer()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            while True:
                await peer.say(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
        assert (await listener.post(LINE)).status == 204


# Many connections, and the end.


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_peer"])
async def test_too_many_connections_are_refused_with_a_word(limit: str) -> None:
    async with listening(**{limit: 2}) as listener:
        first, second = await listener.peer(), await listener.peer()
        for peer in (first, second):
            await peer.say(request(LINE))
            assert (await peer.hear()).status == 204
        third = await listener.peer()
        answer = await third.hear()
        assert (answer.status, answer.json["status"], answer.headers["retry-after"]) == (503, 503, "5")
        assert await third.ends()
        first.writer.close()
        await first.writer.wait_closed()
        async with asyncio.timeout(30):
            while (await _status_of_a_new_connection(listener)) == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await second.say(request(LINE))
        assert (await second.hear()).status == 204


async def _status_of_a_new_connection(listener: Listener) -> int:
    peer = await listener.peer()
    try:
        await peer.say(request(LINE, "Connection: close"))
        return (await peer.hear()).status
    finally:
        peer.writer.close()


async def test_a_stop_answers_what_waits_for_kafka_and_closes() -> None:
    async with listening() as listener:
        peer, idle = await listener.peer(), await listener.peer()
        await idle.say(request(LINE))
        assert (await idle.hear()).status == 204
        listener.producer.on.clear()
        await peer.say(request(LINE))
        await listener.until_taken()
        asyncio.get_running_loop().call_later(0.1, listener.producer.on.set)
    answer = await peer.hear()
    assert (answer.status, answer.headers["connection"]) == (204, "close")
    assert await peer.ends()
    assert await idle.ends()
    assert listener.producer.values_of("a/t") == [1, 1]


async def test_a_stop_waits_for_a_body_that_is_still_coming() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(asking(len(LINE)))
        assert (await peer.hear()).status == 100

        async def rest() -> None:
            for i in range(len(LINE)):
                await peer.say(LINE[i : i + 1])
                await asyncio.sleep(0.002)

        coming = asyncio.create_task(rest())
    await coming
    assert (await peer.hear()).status == 204
    assert listener.producer.values_of("a/t") == [1]


async def test_a_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "STOP_SECONDS", 0.1)
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(asking(len(LINE)))
        assert (await peer.hear()).status == 100
    assert await peer.ends()


async def test_it_listens_on_ipv6_too() -> None:
    async with listening(host="::1") as listener:
        reader, writer = await asyncio.open_connection("::1", listener.port)
        peer = Peer(reader, writer)
        await peer.say(request(b"junk"))
        assert (await peer.hear()).status == 400
    assert listener.producer.rejects[0].peer.startswith("::1:")
