"""ETSI's CoAP plugtest cases, core and block, as far as they apply to this server, under their names.

The cases ask for resources of a test server (``/test``, ``/large``, …); where their promise is about messages and not
about the resource, it is kept here with the resources there are. Each case does what its steps say, as bytes on a socket.

| case                        | why it does not apply                                                                       |
|-----------------------------|---------------------------------------------------------------------------------------------|
| TD_COAP_CORE_02, _03        | DELETE and PUT of a resource: none can be deleted or replaced; 4.05 is tested               |
| TD_COAP_CORE_06, _07        | the same, non-confirmable; 4.05 is tested                                                   |
| TD_COAP_CORE_18, _19        | Location-Path, Location-Query: a reading has no address of its own; POST answers 2.04       |
| TD_COAP_CORE_21             | ETag: nothing that changes can be read                                                      |
| TD_COAP_CORE_22, _23        | If-Match, If-None-Match: nothing is conditional; as critical options they are 4.02 (tested) |
| TD_COAP_BLOCK_03            | PUT in blocks; POST is _04 and _05                                                          |

The answer of CORE_09, _11, _16 and _17 is separate because Kafka takes its time, as in life.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from connectors.coap import message, numbers, taking, transmissions
from connectors.coap.numbers import ACK, CON, NON, RST
from connectors.coap.options import Block, Option
from connectors.coap.resources import LINKS
from tests.support.coap import SENML, Heard, Peer, listening, reading, readings_kept
from tests.support.intake import Bench

CORE: list[Option] = [(numbers.URI_PATH, b".well-known"), (numbers.URI_PATH, b"core")]
DELETE, PUT = numbers.code(0, 4), numbers.code(0, 3)
IF_MATCH, IF_NONE_MATCH = 1, 5

CASES = {f"TD_COAP_CORE_{number:02}" for number in (*range(1, 24), 31)} | {f"TD_COAP_BLOCK_{n:02}" for n in range(1, 7)}
"""Those of the core and block parts."""


def test_every_case_is_tested_or_in_the_table_of_those_that_do_not_apply() -> None:
    tested = {
        case
        for node in ast.parse(Path(__file__).read_text()).body
        if isinstance(node, ast.AsyncFunctionDef)
        for case in re.findall(r"td_coap_[a-z]+_\d\d", node.name.lower())
    }
    passed_over: set[str] = set()
    for row in re.findall(r"^\| (TD_COAP[^|]+)\|", __doc__ or "", re.MULTILINE):
        family, first = re.findall(r"(TD_COAP_[A-Z]+)_(\d\d)", row)[0]
        passed_over |= {f"{family}_{number}" for number in [first, *re.findall(r", _(\d\d)", row)]}
    assert {case.upper() for case in tested} | passed_over == CASES
    assert not {case.upper() for case in tested} & passed_over


async def get(peer: Peer, kind: int = CON, token: bytes = b"t", *options: Option) -> Heard:
    return await peer.ask(b"", [*CORE, *options], code=numbers.GET, kind=kind, token=token)


async def separate(bench: Bench, peer: Peer, kind: int, token: bytes) -> Heard:
    """Send a POST whose answer takes longer than its acknowledgement, and return the answer."""
    bench.producer.on.clear()
    if kind == CON:
        empty = await peer.ask(reading(), token=token)
        assert (empty.kind, empty.code, empty.token) == (ACK, numbers.EMPTY, b"")
    else:
        peer.send(peer.request(reading(), kind=NON, token=token))
        assert (await peer.ping()).kind == RST
    bench.producer.on.set()
    return await peer.hear()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are acknowledged without their answers at once, so that a test need not last for seconds."""
    monkeypatch.setattr(taking, "ACKNOWLEDGE_SECONDS", 0.01)
    monkeypatch.setattr(transmissions, "ACK_TIMEOUT", 0.05)


async def test_td_coap_core_01_get_confirmable() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await get(peer)
    assert (answer.kind, answer.dotted, answer.id, answer.token) == (ACK, "2.05", 1, b"t")
    assert answer.option(numbers.CONTENT_FORMAT) == bytes((numbers.LINK_FORMAT,)) and answer.payload == LINKS


async def test_td_coap_core_04_post_confirmable() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await peer.ask(reading())
    assert (answer.kind, answer.dotted, answer.id, answer.token) == (ACK, "2.04", 1, b"t")
    assert readings_kept(bench) == 1


async def test_td_coap_core_05_get_non_confirmable() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await get(peer, NON)
    assert (answer.kind, answer.dotted, answer.token, answer.payload) == (NON, "2.05", b"t", LINKS)


async def test_td_coap_core_08_post_non_confirmable() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await peer.ask(reading(), kind=NON)
    assert (answer.kind, answer.dotted, answer.token) == (NON, "2.04", b"t")
    assert readings_kept(bench) == 1


async def test_td_coap_core_09_separate_response(slow: None) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await separate(bench, peer, CON, b"t")
            assert (answer.kind, answer.dotted, answer.token) == (CON, "2.04", b"t")
            peer.send(message.empty_ack(answer.id))


async def test_td_coap_core_10_a_token() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            for token in (b"1", b"12345678"):
                assert (await get(peer, CON, token)).token == token


async def test_td_coap_core_11_a_token_and_a_separate_response(slow: None) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await separate(bench, peer, CON, b"12345678")
            assert (answer.kind, answer.token) == (CON, b"12345678")
            peer.send(message.empty_ack(answer.id))


async def test_td_coap_core_12_no_token() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await get(peer, CON, b"")
    assert (answer.kind, answer.dotted, answer.token) == (ACK, "2.05", b"")


async def test_td_coap_core_13_several_segments_of_a_path() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            path: list[Option] = [(numbers.URI_PATH, part) for part in (b"devices", b"room", b"readings")]
            assert (await peer.ask(reading("t"), path)).dotted == "2.04"
    assert bench.producer.values_of("room/t") == [1]


async def test_td_coap_core_14_several_parts_of_a_query() -> None:
    async with listening(auth="token") as bench:
        bench.registry.add("room")
        query: list[Option] = [(numbers.URI_QUERY, part) for part in (b"first=1", b"token=s-room", b"third=3")]
        with Peer(bench) as peer:
            assert (await peer.ask(reading("t"), [*SENML, *query])).dotted == "2.04"


async def test_td_coap_core_15_a_lost_acknowledgement_with_its_answer() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            request = peer.request(reading())
            peer.send(request)
            lost = await peer.hear()
            peer.send(request)
            assert await peer.hear() == lost
    assert readings_kept(bench) == 1


async def test_td_coap_core_16_a_lost_separate_response(slow: None) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            lost = await separate(bench, peer, CON, b"t")
            assert await peer.hear() == lost
            peer.send(message.empty_ack(lost.id))
    assert readings_kept(bench) == 1


async def test_td_coap_core_17_separate_and_non_confirmable(slow: None) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            answer = await separate(bench, peer, NON, b"t")
    assert (answer.kind, answer.dotted, answer.token) == (NON, "2.04", b"t")


async def test_td_coap_core_20_content_formats() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            asked = await get(peer, CON, b"t", (numbers.ACCEPT, bytes((numbers.LINK_FORMAT,))))
            assert asked.option(numbers.CONTENT_FORMAT) == bytes((numbers.LINK_FORMAT,))
            other = await get(peer, CON, b"t", (numbers.ACCEPT, bytes((numbers.JSON,))))
            assert other.dotted == "4.06"


async def test_td_coap_core_31_ping() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            pong = await peer.ping()
    assert (pong.kind, pong.code, pong.id, pong.token, pong.payload) == (RST, numbers.EMPTY, 1, b"", b"")


@pytest.mark.parametrize("code", [DELETE, PUT])
@pytest.mark.parametrize("kind", [CON, NON])
async def test_what_the_table_says_of_delete_and_put(code: int, kind: int) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            assert (await peer.ask(reading(), code=code, kind=kind)).dotted == "4.05"


@pytest.mark.parametrize("option", [(IF_MATCH, b"etag"), (IF_NONE_MATCH, b"")])
async def test_what_the_table_says_of_conditions(option: Option) -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            assert (await peer.ask(reading(), [*SENML, option])).dotted == "4.02"
    assert readings_kept(bench) == 0


async def test_td_coap_block_01_get_in_blocks_that_the_client_begins() -> None:
    assert await links_in_blocks(first=Block(0, False, 1)) == LINKS


async def test_td_coap_block_02_get_in_blocks_that_the_server_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.coap.datagrams.WIRE_BYTES", 0)
    assert await links_in_blocks(first=None) == LINKS


async def test_td_coap_block_06_get_in_the_smallest_blocks() -> None:
    assert await links_in_blocks(first=Block(0, False, 0)) == LINKS


async def links_in_blocks(first: Block | None) -> bytes:
    found, asked = b"", first
    async with listening() as bench:
        with Peer(bench) as peer:
            while True:
                answer = await get(peer, CON, b"t", *([(numbers.BLOCK2, asked.encode())] if asked else []))
                block = Block.decode(answer.option(numbers.BLOCK2) or b"")
                assert answer.dotted == "2.05" and (asked is None or block.exponent == asked.exponent)
                found += answer.payload
                if not block.more:
                    return found
                asked = Block(block.number + 1, False, block.exponent)


async def test_td_coap_block_04_post_in_blocks() -> None:
    await post_in_blocks(exponent=6)


async def test_td_coap_block_05_post_in_blocks_with_an_answer() -> None:
    await post_in_blocks(exponent=2)


async def post_in_blocks(exponent: int) -> None:
    payload = b"[%s]" % b",".join(reading(value=value)[1:-1] for value in range(100))
    async with listening() as bench:
        with Peer(bench) as peer:
            size = 16 << exponent
            for number in range(-(-len(payload) // size)):
                part = payload[number * size : (number + 1) * size]
                block = Block(number, (number + 1) * size < len(payload), exponent)
                answer = await peer.ask(part, [*SENML, (numbers.BLOCK1, block.encode())])
                assert answer.dotted == ("2.31" if block.more else "2.04")
                assert answer.option(numbers.BLOCK1) == block.encode()
    assert bench.producer.values_of("room/t") == list(range(100))
