"""CoAP over TCP and TLS (RFC 8323)."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.coap import datagrams, frames, numbers, streams
from connectors.coap.options import Block, encode_uint
from tests.support.certificates import Authority
from tests.support.coap import SENML, StreamPeer, listening, reading, readings_kept


async def test_the_server_says_what_it_takes_before_anything_else() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        csm = await peer.greet()
        assert csm.code == numbers.CSM
        assert csm.options == [(2, encode_uint(frames.MAX_MESSAGE_BYTES)), (4, b"")]


async def test_requests_are_answered_by_their_tokens() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        for number in range(100):
            peer.send(numbers.POST, SENML, reading(value=number), token=b"%d" % number)
        answers = [await peer.hear() for _ in range(100)]
        assert {answer.dotted for answer in answers} == {"2.04"}
        assert {answer.token for answer in answers} == {b"%d" % number for number in range(100)}
    assert bench.producer.values_of("room/t") == list(range(100))


async def test_bytes_may_come_one_by_one() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        for byte in frames.encode_frame(numbers.POST, b"t", b"\xb8readings\x11\x6e\xff" + reading()):
            peer.writer.write(bytes((byte,)))
            await peer.writer.drain()
        assert (await peer.hear()).dotted == "2.04"


@pytest.mark.parametrize(
    ("payload", "code"), [(b"junk", "4.00"), (b'[{"n":"room/t","v":1},{"n":"room/u","v":"x"}]', "4.00")]
)
async def test_what_is_refused_is_said(payload: bytes, code: str) -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        answer = await peer.ask(payload)
        assert answer.dotted == code and b"refused" in answer.payload
        assert (await peer.ask(reading())).dotted == "2.04"


async def test_a_large_payload_comes_in_one_message() -> None:
    payload = b"[%s]" % b",".join(reading(value=value)[1:-1] for value in range(9_000))
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        assert (await peer.ask(payload)).dotted == "2.04"
    assert readings_kept(bench) == 9_000


async def test_a_payload_may_come_in_blocks_of_any_length() -> None:
    payload = b"[%s]" % b",".join(reading(value=value)[1:-1] for value in range(300))
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        for number, at, more, code in ((0, 0, True, "2.31"), (4, 4096, False, "2.04")):
            block = (numbers.BLOCK1, Block(number, more, 7).encode())
            part = payload[at : at + 4096] if more else payload[at:]
            assert (await peer.ask(part, [*SENML, block])).dotted == code
    assert readings_kept(bench) == 300


async def test_a_message_that_is_too_large_is_4_13_and_the_connection_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE_BYTES", 1000)
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        answer = await peer.ask(b"x" * 100_000)
        assert (answer.dotted, answer.token) == ("4.13", b"t")
        assert answer.option(numbers.SIZE1) is not None
        assert (await peer.ask(reading())).dotted == "2.04"
    [reject] = bench.producer.rejects
    assert reject.reason == "too_large" and reject.size > 100_000


async def test_no_response_leaves_the_answer_out() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        peer.send(numbers.POST, [*SENML, (numbers.NO_RESPONSE, b"\x02")], reading())
        peer.send(numbers.PING, token=b"p")
        assert (await peer.hear()).code == numbers.PONG
    assert readings_kept(bench) == 1


async def test_a_ping_is_answered_with_its_token() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        peer.send(numbers.PING, token=b"abc")
        pong = await peer.hear()
        assert (pong.code, pong.token) == (numbers.PONG, b"abc")


async def aborted(peer: StreamPeer) -> bytes:
    """Return why the server aborts a connection."""
    while (heard := await peer.hear()).code != numbers.ABORT:
        pass
    with pytest.raises(EOFError):
        await peer.hear()
    return heard.payload


async def test_a_request_before_the_csm_ends_the_connection() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        peer.send(numbers.POST, SENML, reading())
        assert b"CSM" in await aborted(peer)
    assert readings_kept(bench) == 0


async def test_a_stream_that_is_no_coap_ends_the_connection_and_is_kept_as_a_reject() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        peer.writer.write(b"\x0fGET / HTTP/1.1\r\n\r\n")
        assert b"token of 15" in await aborted(peer)
    assert [one.reason for one in bench.producer.rejects] == ["malformed"]


async def test_a_critical_option_of_a_signal_that_is_not_understood_ends_the_connection() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        peer.send(numbers.CSM, [(9, b"")])
        assert b"option 9" in await aborted(peer)


async def test_requests_before_a_release_are_answered() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        bench.producer.on.clear()
        peer.send(numbers.POST, SENML, reading())
        peer.send(numbers.RELEASE)
        peer.send(numbers.POST, SENML, reading())  # comes too late
        await peer.writer.drain()
        bench.producer.on.set()
        assert (await peer.hear()).dotted == "2.04"
        with pytest.raises(EOFError):
            await peer.hear()
    assert readings_kept(bench) == 1


async def test_an_abort_of_the_peer_ends_the_connection() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        peer.send(numbers.ABORT)
        with pytest.raises(EOFError):
            await peer.hear()


async def test_a_stop_is_announced_and_what_has_come_is_answered() -> None:
    async with listening() as bench:
        async with StreamPeer(bench) as peer:
            await peer.greet()
            bench.producer.on.clear()
            peer.send(numbers.POST, SENML, reading())
            peer.send(numbers.PING)
            assert (await peer.hear()).code == numbers.PONG
            bench.producer.on.set()
            assert (await peer.hear()).dotted == "2.04"
        quiet = await StreamPeer(bench).__aenter__()
        await quiet.greet()
        quiet.send(numbers.PING)
        assert (await quiet.hear()).code == numbers.PONG
    assert (await quiet.hear()).code == numbers.RELEASE
    with pytest.raises(EOFError):
        await quiet.hear()
    quiet.writer.close()


@pytest.mark.parametrize(
    ("limit", "begin", "why"),
    [
        ("GREETING_SECONDS", b"", b"too long"),
        ("IDLE_SECONDS", frames.encode_frame(numbers.CSM, b"", b""), b"too long"),
        ("MESSAGE_SECONDS", frames.encode_frame(numbers.CSM, b"", b"") + b"\xd0", b"did not end"),
    ],
)
async def test_a_connection_that_stands_still_is_ended(
    limit: str, begin: bytes, why: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, limit, 0.0)
    monkeypatch.setattr(streams, "SWEEP_SECONDS", 0.01)
    async with listening() as bench, StreamPeer(bench) as peer:
        peer.writer.write(begin)
        assert why in await aborted(peer)
    assert [one.original for one in bench.producer.rejects] == ([b"\xd0"] if why == b"did not end" else [])


async def test_a_peer_that_reads_no_answers_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNREAD_SECONDS", 0.0)
    monkeypatch.setattr(streams, "SWEEP_SECONDS", 0.01)
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        pings = frames.encode_frame(numbers.PING, b"12345678", b"") * 10_000
        with pytest.raises(ConnectionError):
            while True:
                peer.writer.write(pings)
                await peer.writer.drain()


async def test_a_connection_with_many_open_requests_is_not_read_until_they_are_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MAX_UNANSWERED", 2)
    async with listening() as bench, StreamPeer(bench) as peer, StreamPeer(bench) as other:
        await peer.greet()
        await other.greet()
        bench.producer.on.clear()
        peer.send(numbers.POST, SENML, reading())
        peer.send(numbers.POST, SENML, reading())
        other.send(numbers.PING)  # by then they have been read
        assert (await other.hear()).code == numbers.PONG
        for _ in range(5):
            peer.send(numbers.POST, SENML, reading())
        other.send(numbers.PING)
        assert (await other.hear()).code == numbers.PONG
        bench.producer.on.set()
        assert [(await peer.hear()).dotted for _ in range(7)] == ["2.04"] * 7


async def test_connections_of_one_peer_are_bounded() -> None:
    async with listening(max_connections_per_peer=1) as bench, StreamPeer(bench) as peer, StreamPeer(bench) as second:
        await peer.greet()
        assert b"1 connections of 127.0.0.1 are open" in await aborted(second)


async def test_a_last_request_may_be_followed_by_the_end_of_the_stream() -> None:
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        peer.send(numbers.POST, SENML, reading())
        peer.writer.write_eof()
        assert (await peer.hear()).dotted == "2.04"
        with pytest.raises(EOFError):
            await peer.hear()


async def test_over_tls_a_client_certificate_says_who_it_is(tmp_path: Path, tool: Callable[..., str]) -> None:
    authority = Authority(tmp_path, tool("openssl"))
    server, room = authority.sign("server", "DNS:localhost"), authority.sign("room", "DNS:room-1")
    files: dict[str, Any] = {
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "tls_client_ca": authority.certificate,
    }
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(room.certificate, room.key)
    context.set_alpn_protocols(["coap"])
    async with listening(auth="token", **files) as bench:
        async with StreamPeer(bench, context) as peer:
            await peer.greet()
            assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "coap"
            assert (await peer.ask(reading("t"))).dotted == "2.04"
            answer = await peer.ask(reading("room-2/t"))
            assert answer.dotted == "4.00" and b"identity" in answer.payload
        async with StreamPeer(bench) as stranger:
            await stranger.greet()
            assert (await stranger.ask(reading("room-1/t"))).dotted == "4.01"
    assert bench.producer.values_of("room-1/t") == [1]


async def test_answers_over_tcp_need_not_be_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "MAX_AMPLIFICATION", 0)
    async with listening() as bench, StreamPeer(bench) as peer:
        await peer.greet()
        core = [(numbers.URI_PATH, b".well-known"), (numbers.URI_PATH, b"core")]
        assert (await peer.ask(b"", core, numbers.GET)).option(numbers.BLOCK2) is None
