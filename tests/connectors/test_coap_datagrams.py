"""CoAP over UDP: messages that come twice, answers that take long, and what is refused."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from connectors import intake
from connectors.coap import datagrams, exchanges, message, numbers, taking, transmissions
from connectors.coap.numbers import ACK, CON, NON, RST
from connectors.coap.sockets import Address, bound_socket
from simulator.coap_sender import CoapSender
from tests.support.coap import READINGS, SENML, Peer, listening, reading, readings_kept


async def test_a_request_that_comes_again_is_taken_in_once_and_answered_again() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            request = peer.request(reading())
            for _ in range(3):
                peer.send(request)
                heard = await peer.hear()
                assert (heard.kind, heard.dotted, heard.token) == (ACK, "2.04", b"t")
    assert readings_kept(bench) == 1


async def test_an_error_is_said_again_to_a_request_that_comes_again() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            request = peer.request(b"junk")
            answers = []
            for _ in range(2):
                peer.send(request)
                answers.append(await peer.hear())
            assert answers[0] == answers[1] and answers[0].dotted == "4.00"
    assert [one.count for one in bench.producer.rejects] == [1]


async def test_a_request_that_comes_again_while_it_waits_for_kafka_gets_the_one_answer() -> None:
    async with listening() as bench:
        bench.producer.on.clear()
        with Peer(bench) as peer:
            request = peer.request(reading())
            peer.send(request)
            peer.send(request)
            assert (await peer.ping()).kind == RST  # both have come, neither is answered
            bench.producer.on.set()
            assert (await peer.hear()).dotted == "2.04"
            assert (await peer.ping()).kind == RST
    assert readings_kept(bench) == 1


async def test_another_request_with_a_known_message_id_is_a_new_one() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            for value in (1, 2, 1):
                assert (await peer.ask(reading(value=value), id=7)).dotted == "2.04"
    assert bench.producer.values_of("room/t") == [1, 2]


async def test_the_same_bytes_from_another_port_are_another_request() -> None:
    async with listening() as bench:
        for _ in range(2):
            with Peer(bench) as peer:
                await peer.ask(reading(), id=7)
    assert readings_kept(bench) == 2


async def test_of_70_000_equal_posts_from_one_endpoint_every_one_that_is_acknowledged_is_stored() -> None:
    """Message ids begin anew after 65,536: those of the last 4,464 requests, and their bytes, were there before."""
    total = 70_000
    async with listening(100.0) as bench:
        sender = CoapSender("127.0.0.1", bench.settings.coap_port)
        sent = answered = 0
        problems: list[str] = []
        done = asyncio.Event()

        def heard(_: float, problem: str | None) -> None:
            nonlocal sent, answered
            answered += 1
            problems.extend([problem] if problem else [])
            if sent < total:
                sent += 1
                sender.post(reading(), heard)
            if answered == total:
                done.set()

        for _ in range(64):
            sent += 1
            sender.post(reading(), heard)
        while not done.is_set():
            sender.send_again()
            await asyncio.wait({asyncio.ensure_future(done.wait())}, timeout=0.5)
        sender.close()
        assert problems == []
    assert readings_kept(bench) == total


async def test_an_answer_that_takes_long_comes_separately_and_until_it_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(taking, "ACKNOWLEDGE_SECONDS", 0.01)
    monkeypatch.setattr(transmissions, "ACK_TIMEOUT", 0.02)
    for payload, code in ((reading(), "2.04"), (b"junk", "4.00")):
        async with listening() as bench:
            bench.producer.on.clear()
            with Peer(bench) as peer:
                request = peer.request(payload)
                peer.send(request)
                empty = await peer.hear()
                assert (empty.kind, empty.code, empty.id) == (ACK, numbers.EMPTY, 1)
                bench.producer.on.set()
                answer = await peer.hear()
                assert (answer.kind, answer.dotted, answer.token) == (CON, code, b"t")
                assert await peer.hear() == answer  # sent again
                peer.send(message.empty_ack(answer.id))
                while (heard := await peer.ping()) == answer:  # one may have been on its way
                    pass
                assert heard.kind == RST
                peer.send(request)
                assert await peer.hear() == empty


async def test_an_answer_that_nobody_acknowledges_is_sent_five_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transmissions, "ACK_TIMEOUT", 0.005)
    sent: list[bytes] = []
    table = transmissions.Transmissions(lambda datagram, _: sent.append(datagram))
    table.begin(b"answer", Address(("192.0.2.1", 1)), 1)
    assert len(table) == 1
    async with asyncio.timeout(30):
        while len(table):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # its end is no event: nobody waits for it
    assert sent == [b"answer"] * (1 + transmissions.MAX_RETRANSMIT)


async def test_when_too_many_answers_wait_for_their_acknowledgement_others_are_not_confirmable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(taking, "ACKNOWLEDGE_SECONDS", 0.01)
    monkeypatch.setattr(transmissions, "MAX_OPEN", 0)
    async with listening() as bench:
        bench.producer.on.clear()
        with Peer(bench) as peer:
            assert (await peer.ask(reading())).code == numbers.EMPTY
            bench.producer.on.set()
            assert (await peer.hear()).kind == NON


async def test_kafka_that_does_not_answer_in_time_is_5_03_with_max_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "ACKNOWLEDGE_SECONDS", 0.01)
    monkeypatch.setattr(intake, "REFUSE_SECONDS", 0.05)
    async with listening() as bench:
        bench.producer.on.clear()
        for payload in (reading(), b"junk"):
            with Peer(bench) as peer:
                assert (await peer.ask(payload)).code == numbers.EMPTY
                answer = await peer.hear()
                assert (answer.dotted, answer.option(numbers.MAX_AGE)) == ("5.03", b"\x05")
                assert b"Kafka did not acknowledge" in answer.payload
        bench.producer.on.set()
    assert readings_kept(bench) == 1  # it may be stored all the same


async def test_kafka_that_is_away_is_5_03_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.0)
    async with listening() as bench:
        bench.producer.on.clear()
        with Peer(bench) as peer:
            peer.send(peer.request(reading()))
            assert (await peer.ping()).kind == RST
            answer = await peer.ask(reading(value=2))
            assert (answer.kind, answer.dotted) == (ACK, "5.03")
            bench.producer.on.set()
            assert (await peer.hear()).dotted == "2.04"
    assert bench.producer.values_of("room/t") == [1]


async def test_an_endpoint_with_too_many_open_requests_is_told_4_29(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "MAX_UNANSWERED", 3)
    async with listening() as bench:
        bench.producer.on.clear()
        with Peer(bench) as peer, Peer(bench) as other:
            for value in range(3):
                peer.send(peer.request(reading(value=value)))
            answer = await peer.ask(reading(value=3))
            assert (answer.dotted, answer.option(numbers.MAX_AGE)) == ("4.29", b"\x01")
            other.send(other.request(reading("other/t")))
            assert (await other.ping()).kind == RST
            bench.producer.on.set()
            assert {(await peer.hear()).dotted for _ in range(3)} == {"2.04"}
            assert (await other.hear()).dotted == "2.04"
            assert (await peer.ask(reading(value=3))).dotted == "2.04"
    assert bench.producer.values_of("room/t") == [0, 1, 2, 3]


@pytest.mark.parametrize("limit", ["MAX_WAITING", "MAX_WAITING_BYTES"])
async def test_when_too_much_waits_in_all_requests_are_5_03(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, limit, 1)
    async with listening() as bench:
        bench.producer.on.clear()
        with Peer(bench) as peer:
            peer.send(peer.request(reading()))
            for payload in (reading(value=2), b"junk"):
                assert (await peer.ask(payload)).dotted == "5.03"
            bench.producer.on.set()
            assert (await peer.hear()).dotted == "2.04"


async def test_a_bad_reading_among_many_requests_of_a_turn_is_told_to_its_sender_alone() -> None:
    async with listening() as bench:
        peers = [Peer(bench) for _ in range(40)]
        for number, peer in enumerate(peers):  # nothing is awaited in between: all are read in one turn
            payload = b'[{"n":"room/t","v":1,"t":99999999999}]' if number == 17 else reading(f"d{number}/t")
            peer.send(peer.request(payload))
        codes = [(await peer.hear()).dotted for peer in peers]
        assert [number for number, code in enumerate(codes) if code != "2.04"] == [17]
        assert codes[17] == "4.00"
    assert readings_kept(bench) == 39
    assert [one.reason for one in bench.producer.rejects] == ["time"]


async def test_a_non_confirmable_request_is_answered_by_one() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            request = peer.request(reading(), kind=NON)
            peer.send(request)
            answer = await peer.hear()
            assert (answer.kind, answer.dotted, answer.token) == (NON, "2.04", b"t")
            peer.send(request)  # not answered again (RFC 7252 §4.5)
            assert (await peer.ping()).kind == RST
    assert readings_kept(bench) == 1


@pytest.mark.parametrize(
    ("no_response", "payload", "is_answered"),
    [
        (2, reading(), False),
        (2, b"junk", True),
        (8, b"junk", False),
        (8, reading(), True),
        (26, b"junk", False),
        (0, b"x", True),
    ],
)
async def test_no_response_leaves_out_what_it_says(no_response: int, payload: bytes, is_answered: bool) -> None:
    options = [*SENML, (numbers.NO_RESPONSE, bytes((no_response,)) if no_response else b"")]
    async with listening() as bench:
        with Peer(bench) as peer:
            confirmed = await peer.ask(payload, options)
            assert confirmed.kind == ACK
            assert (confirmed.code != numbers.EMPTY) is is_answered
            if is_answered:
                assert (await peer.ask(payload, options, kind=NON)).kind == NON
                return
            peer.send(peer.request(payload, options, kind=NON))
    with_rejects = readings_kept(bench) + len(bench.producer.rejects)
    assert with_rejects == 2  # after the end of the connector: what was received is taken in


async def test_a_ping_is_answered_with_a_reset() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            pong = await peer.ping()
            assert (pong.kind, pong.code, pong.id, pong.token) == (RST, numbers.EMPTY, 1, b"")


@pytest.mark.parametrize(
    "bad",
    [
        b"\x40\x02\x00\x01\xff",
        b"\x40\x02\x00\x01\x0f",
        b"\x40\x02\x00\x01\xb8short",
        b"\x49\x02\x00\x01123456789",
        b"\x44\x02\x00\x0112",
        b"\x40\x00\x00\x01x",
        b"\x40\x20\x00\x01",
        b"\x40\xc0\x00\x01",
        b"\x40\xe1\x00\x01",
    ],
)
async def test_a_confirmable_message_that_is_none_is_reset_and_kept_as_a_reject(bad: bytes) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            peer.send(bad)
            heard = await peer.hear()
            assert (heard.kind, heard.code, heard.id) == (RST, numbers.EMPTY, 1)
            peer.send(bytes((bad[0] | 0x10,)) + bad[1:])  # non-confirmable: passed over
            assert (await peer.ping()).kind == RST
    assert b"\n".join(one.original for one in bench.producer.rejects).startswith(bad)
    assert sum(one.count for one in bench.producer.rejects) == 2
    assert {one.reason for one in bench.producer.rejects} == {"malformed"}


async def test_an_unsolicited_response_is_reset() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            peer.send(message.encode(CON, numbers.CONTENT, 9, b"t", (), b"hello"))
            assert (await peer.hear()).kind == RST


@pytest.mark.parametrize("datagram", [b"", b"\x40", b"\x00\x02\x00\x01", b"\x80\x02\x00\x01", b"\xc0\x02\x00\x01"])
async def test_what_is_no_coap_is_passed_over_and_kept_as_a_reject(datagram: bytes) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            peer.send(datagram)
            assert (await peer.ping()).kind == RST
    assert [one.reason for one in bench.producer.rejects] == ["malformed"]


async def test_a_critical_option_that_is_not_understood_is_4_02_or_passed_over() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await peer.ask(reading(), [*SENML, (9, b"?")])
            assert answer.dotted == "4.02" and b"option 9" in answer.payload
            peer.send(peer.request(reading(), [*SENML, (9, b"?")], kind=NON))
            assert (await peer.ping()).kind == RST
    assert readings_kept(bench) == 0
    assert sum(one.count for one in bench.producer.rejects) == 2


async def test_no_answer_is_much_longer_than_its_request() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            for request in (
                peer.request(code=numbers.GET, options=[(numbers.URI_PATH, b".well-known"), (numbers.URI_PATH, b"core")]),
                peer.request(options=[], token=b""),
                peer.request(options=READINGS, token=b""),
                peer.request(b"\xff" * 9),
                peer.request(b"1", [*READINGS, (numbers.CONTENT_FORMAT, b"\x63")]),
            ):
                peer.send(request)
                heard = await peer.hear()
                size = len(message.encode(heard.kind, heard.code, heard.id, heard.token, heard.options, heard.payload))
                assert size + 28 <= 3 * (len(request) + 28)
                heard.payload.decode()


async def test_garbage_does_not_stop_the_endpoint() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            for size in range(300):
                peer.send(os.urandom(size))
        with Peer(bench) as peer:
            assert (await peer.ask(reading())).dotted == "2.04"
    assert readings_kept(bench) == 1


async def test_a_sender_that_does_not_hear_its_answer_does_not_stop_the_endpoint() -> None:
    async with listening() as bench:
        for _ in range(20):
            with Peer(bench) as gone:
                gone.send(gone.request(reading("gone/t")))
        with Peer(bench) as peer:
            assert (await peer.ask(reading())).dotted == "2.04"
    assert readings_kept(bench) == 21


async def test_what_has_come_is_answered_when_the_connector_stops() -> None:
    async with listening() as bench:
        bench.producer.on.clear()
        with_answer = Peer(bench)
        with_answer.send(with_answer.request(reading()))
        assert (await with_answer.ping()).kind == RST
        asyncio.get_running_loop().call_later(0.05, bench.producer.on.set)
    assert (await with_answer.hear()).dotted == "2.04"


async def test_shards_share_a_port_and_an_endpoint_stays_with_one() -> None:
    async with listening(reuse_port=True) as first:
        ports = {name: getattr(first.settings, name) for name in ("coap_port", "coap_tcp_port", "coap_tls_port")}
        async with listening(reuse_port=True, **ports) as second:
            for number in range(40):
                with Peer(first) as peer:
                    for value in range(3):
                        await peer.ask(reading(f"d{number}/t", value))
    by_shard = [[bench.producer.values_of(f"d{number}/t") for number in range(40)] for bench in (first, second)]
    assert all(sorted(map(len, values)) == [0, 3] for values in zip(*by_shard, strict=True))
    assert all(any(values) for values in by_shard)


async def test_the_same_bytes_are_a_new_request_when_the_old_one_cannot_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "EXCHANGE_LIFETIME", 0.0)
    monkeypatch.setattr(datagrams, "EXPIRE_SECONDS", -1.0)
    async with listening() as bench:
        with Peer(bench) as peer:
            for _ in range(3):
                await peer.ask(reading(), id=7)
                assert (await peer.ping()).kind == RST  # another turn, which forgets
    assert readings_kept(bench) == 3


async def test_more_datagrams_than_are_read_in_a_turn_are_read_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "MAX_DATAGRAMS_A_TURN", 2)
    async with listening() as bench:
        with Peer(bench) as peer:
            for value in range(20):
                peer.send(peer.request(reading(value=value)))
            assert [(await peer.hear()).dotted for _ in range(20)] == ["2.04"] * 20
    assert bench.producer.values_of("room/t") == list(range(20))


async def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            bound_socket("127.0.0.1", taken.getsockname()[1], reuse_port=False)
