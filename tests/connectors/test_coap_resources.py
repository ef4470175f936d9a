"""What CoAP serves: resources, formats, blocks, and who may send."""

from __future__ import annotations

import time

import cbor2
import msgspec
import pytest

from connectors import coap, intake
from connectors.coap import datagrams, numbers
from connectors.coap.blocks import BLOCK_SECONDS
from connectors.coap.options import Block, Option, encode_uint, target_of
from connectors.coap.requests import MAX_DIAGNOSTIC_CHARS, Answer, Request, error
from connectors.coap.resources import LINKS, Resources
from connectors.formats import senml
from connectors.identity import ANYONE, Identity, only
from connectors.plain import PlainRecord, merged, plain_records
from connectors.receipt import Receipt
from isotherm.clock import now_us
from isotherm.limits import MAX_PACK_BYTES
from tests.support.coap import READINGS, SENML, Heard, Peer, listening, reading, readings_kept
from tests.support.intake import Bench

CORE: list[Option] = [(numbers.URI_PATH, b".well-known"), (numbers.URI_PATH, b"core")]


def device(name: bytes) -> list[Option]:
    path: list[Option] = [(numbers.URI_PATH, part) for part in (b"devices", name, b"readings")]
    return [*path, (numbers.CONTENT_FORMAT, bytes((numbers.SENML_JSON,)))]


def formed(form: int) -> list[Option]:
    return [*READINGS, (numbers.CONTENT_FORMAT, encode_uint(form))]


async def ask(bench: Bench, payload: bytes, options: object = SENML, code: int = numbers.POST) -> Heard:
    with Peer(bench) as peer:
        return await peer.ask(payload, options, code=code)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [numbers.SENML_JSON, numbers.JSON, numbers.SENML_CBOR, numbers.CBOR, None])
async def test_each_content_format_is_taken(form: int | None) -> None:
    payload = reading()
    if form in (numbers.SENML_CBOR, numbers.CBOR):
        payload = cbor2.dumps([{0: "room/t", 2: 1.0}])
    async with listening() as bench:
        assert (await ask(bench, payload, READINGS if form is None else formed(form))).dotted == "2.04"
    assert bench.producer.values_of("room/t") == [1]


@pytest.mark.parametrize(
    "payload",
    [
        b'[{"bn":"room/","n":"t","u":"Cel","v":1},{"n":"t","v":2,"seq":3}]',
        b'{"n":"room/t","v":1}',
        b'[{"n":"room/t","vb":true}]',
    ],
)
async def test_what_is_not_plain_is_taken_as_well(payload: bytes) -> None:
    async with listening() as bench:
        assert (await ask(bench, payload)).dotted == "2.04"
    assert bench.producer.values_of("room/t")[0] == 1


@pytest.mark.parametrize(
    ("records", "device"),
    [
        ([{"n": "room/t", "v": 1}, {"n": "room/u", "u": "Cel", "v": -2.5, "t": -5, "seq": 7}], None),
        ([{"n": "t", "v": 1}], "room"),
        ([{"n": "urn:dev:ow:10e2073a01080063:voltage", "v": 1}, {"n": "urn:dev:ow:10e2073a01080063/a/b", "v": 1}], None),
        ([{"n": "aa:bb/t", "v": 1}, {"n": "aa:t", "v": 1}], None),
        ([{"n": "t", "v": 1}], "urn:dev:ow:1_2"),
        ([{"n": "t", "v": 1}], "aa:bb"),
    ],
)
async def test_plain_payloads_are_read_as_all_others_are(records: list[dict[str, object]], device: str | None) -> None:
    """What goes the fast way is what the decoder for all would have found."""
    slow, fast = Bench(), Bench()
    identity = ANYONE if device is None else only(device)
    payload, now = msgspec.json.encode(records), now_us()
    for bench in (slow, fast):
        async with bench.intake.running():
            if bench is slow:
                receipt = await bench.intake.accept(senml.decode_payload(payload, now), peer="", identity=identity)
                assert receipt.accepted == len(records)
            elif (plain := plain_records(payload, identity)) is not None:
                assert bench.intake.take_clean(merged(plain, now), Receipt())
            else:
                assert device == "urn:dev:ow:1_2"
                return
    found = [
        {
            (pack.names[code], time, value, None if pack.seq is None else int(pack.seq[row]))
            for packs in bench.producer.packs.values()
            for pack in packs
            for row, (code, time, value) in enumerate(
                zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), strict=True)
            )
        }
        for bench in (slow, fast)
    ]
    assert found[0] == found[1] and len(found[0]) == len(records)


@pytest.mark.parametrize(
    "payload",
    [
        b'[{"n":"t","v":1}]',
        b'[{"n":"other/t","v":1},{"n":"room/t","v":1}]',
        b'[{"n":"room/t","v":1,"seq":-1}]',
        b'[{"n":"room/t","v":1,"x_":1}]',
        b"[]",
        b'[{"n":"room/t"}]',
    ],
)
def test_what_cannot_be_taken_as_it_is_does_not_go_the_fast_way(payload: bytes) -> None:
    assert plain_records(payload, Identity(None, frozenset({"room"}))) is None


async def test_a_piece_that_is_not_clean_is_not_taken_in() -> None:
    bench = Bench()
    async with bench.intake.running():
        for records in ([PlainRecord("room/t", 1.0), PlainRecord("room/t", 1.0, 9e10)], [PlainRecord("bare", 1.0)]):
            receipt = Receipt()
            assert not bench.intake.take_clean(merged(records, now_us()), receipt)
            assert receipt.is_durable and not receipt.accepted
    assert readings_kept(bench) == 0 and bench.producer.rejects == []


async def test_a_payload_in_blocks_that_does_not_go_on_is_kept_as_a_reject() -> None:
    bench = Bench()
    async with bench.intake.running():
        resources = Resources(bench.site)
        blocks = [(numbers.BLOCK1, Block(0, True, 0).encode())]
        request = Written(numbers.POST, [*SENML, *blocks], b"x" * 16)
        resources.handle(request)
        assert request.answers == [Answer(numbers.CONTINUE)]
        resources.expire(time.monotonic() + BLOCK_SECONDS + 1)
    assert [(one.reason, one.original) for one in bench.producer.rejects] == [("malformed", b"x" * 16)]


async def test_a_stop_does_not_wait_for_ever_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coap, "CLOSE_SECONDS", 0.01)
    async with listening() as bench:
        bench.producer.on.clear()
        with Peer(bench) as peer:
            peer.send(peer.request(reading()))
            assert (await peer.ping()).kind == numbers.RST
        monkeypatch.setattr(intake, "DRAIN_SECONDS", 0.01)


def test_a_diagnostic_text_is_cut() -> None:
    assert len(error(numbers.BAD_REQUEST, "x" * 10_000).payload) == MAX_DIAGNOSTIC_CHARS


class Written(Request):
    """A request without a socket."""

    is_datagram = True

    def __init__(self, code: int, options: list[Option], payload: bytes) -> None:
        self.code, self.target, self.payload = code, target_of(options), payload
        self.answers: list[Answer] = []

    peer = sender = "192.0.2.1:5683"

    def acknowledge(self) -> None:
        raise AssertionError("nothing takes long here")

    def answer(self, answer: Answer) -> None:
        self.answers.append(answer)

    def room_for_payload(self) -> int:
        return 1000


async def test_another_content_format_is_4_15_and_kept_as_a_reject() -> None:
    async with listening() as bench:
        answer = await ask(bench, b"<x/>", formed(41))
        assert answer.dotted == "4.15" and b"content format 41" in answer.payload
    assert [(one.reason, one.original) for one in bench.producer.rejects] == [("format", b"<x/>")]


@pytest.mark.parametrize(
    ("path", "code", "expected"),
    [
        ([b"elsewhere"], numbers.POST, "4.04"),
        ([], numbers.POST, "4.04"),
        ([b"readings", b""], numbers.POST, "4.04"),
        ([b"devices", b"room"], numbers.POST, "4.04"),
        ([b"readings"], numbers.GET, "4.05"),
        ([b"readings"], numbers.code(0, 3), "4.05"),
        ([b"readings"], numbers.code(0, 31), "4.05"),
        ([b".well-known", b"core"], numbers.POST, "4.05"),
        ([b"devices", b"r\xc3\xb6m", b"readings"], numbers.POST, "4.00"),
    ],
)
async def test_what_is_not_served_is_said_so(path: list[bytes], code: int, expected: str) -> None:
    async with listening() as bench:
        answer = await ask(bench, reading(), [(numbers.URI_PATH, part) for part in path], code)
        assert answer.dotted == expected and answer.payload


async def test_readings_of_a_devices_resource_are_of_this_device() -> None:
    async with listening() as bench:
        assert (await ask(bench, reading("t"), device(b"room"))).dotted == "2.04"
        assert (await ask(bench, reading("room/t", 2), device(b"room"))).dotted == "2.04"
        answer = await ask(bench, reading("other/t"), device(b"room"))
        assert answer.dotted == "4.00" and b"identity" in answer.payload
    assert bench.producer.values_of("room/t") == [1, 2]
    assert [one.reason for one in bench.producer.rejects] == ["identity"]


async def test_a_bare_name_without_a_device_is_refused() -> None:
    async with listening() as bench:
        answer = await ask(bench, reading("t"))
        assert answer.dotted == "4.00" and b"no_device" in answer.payload


@pytest.mark.parametrize("shown", [(numbers.URI_QUERY, b"token=s-gw"), (numbers.DEVICE_TOKEN, b"s-gw")])
async def test_a_token_shows_for_whom_a_peer_speaks(shown: Option) -> None:
    async with listening(auth="token") as bench:
        bench.registry.add("gw", "child")
        bench.registry.add("other")
        for _ in range(2):  # the second time it is known
            assert (await ask(bench, reading("gw/t"), [*SENML, shown])).dotted == "2.04"
            assert (await ask(bench, reading("t"), [*SENML, shown])).dotted == "2.04"
            assert (await ask(bench, reading("child/t"), [*SENML, shown])).dotted == "2.04"
            assert (await ask(bench, reading("t"), [*device(b"child"), shown])).dotted == "2.04"
            answer = await ask(bench, reading("other/t"), [*SENML, shown])
            assert answer.dotted == "4.00" and b"identity" in answer.payload
            answer = await ask(bench, reading("gw/t"), [*device(b"child"), shown])
            assert answer.dotted == "4.00" and b"identity" in answer.payload
            assert (await ask(bench, reading("t"), [*device(b"other"), shown])).dotted == "4.01"
    assert bench.producer.values_of("gw/t") == [1, 1, 1, 1]
    assert bench.producer.values_of("child/t") == [1, 1, 1, 1]


@pytest.mark.parametrize("token", [None, b"wrong"])
async def test_without_a_valid_token_it_is_4_01_and_kept_as_a_reject(token: bytes | None) -> None:
    async with listening(auth="token") as bench:
        bench.registry.add("gw")
        shown: list[Option] = [(numbers.DEVICE_TOKEN, token)] if token else []
        answer = await ask(bench, reading("gw/t"), [*SENML, *shown])
        assert answer.dotted == "4.01" and b"token" in answer.payload
    assert [(one.reason, one.original) for one in bench.producer.rejects] == [("auth", reading("gw/t"))]


async def test_while_the_registry_is_away_it_is_5_03() -> None:
    async with listening(auth="token") as bench:
        bench.registry.add("gw")
        bench.registry.is_away = True
        assert (await ask(bench, reading("gw/t"), [*SENML, (numbers.DEVICE_TOKEN, b"s-gw")])).dotted == "5.03"


async def test_a_stranger_cannot_hold_blocks() -> None:
    async with listening(auth="token") as bench:
        block = (numbers.BLOCK1, Block(0, True, 0).encode())
        assert (await ask(bench, b"x" * 16, [*SENML, block])).dotted == "4.01"


async def test_links_are_found() -> None:
    async with listening() as bench:
        answer = await ask(bench, b"", CORE, numbers.GET)
    assert (answer.dotted, answer.option(numbers.CONTENT_FORMAT)) == ("2.05", bytes((numbers.LINK_FORMAT,)))
    assert answer.payload == LINKS and answer.option(numbers.BLOCK2) is None


@pytest.mark.parametrize(("headers", "asked"), [(0, None), (28, Block(0, False, 1))])
async def test_links_come_in_blocks_where_all_would_be_too_much_or_smaller_ones_are_asked_for(
    headers: int, asked: Block | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "WIRE_BYTES", headers)
    found = b""
    block = Block(0, True, 0)
    async with listening() as bench:
        with Peer(bench) as peer:
            while block.more:
                options = CORE if asked is None else [*CORE, (numbers.BLOCK2, asked.encode())]
                answer = await peer.ask(b"", options, code=numbers.GET)
                block = Block.decode(answer.option(numbers.BLOCK2) or b"")
                assert len(answer.payload) == block.size or not block.more
                found += answer.payload
                asked = Block(block.number + 1, False, block.exponent)
    assert found == LINKS


async def test_links_beyond_the_end_are_4_00_and_of_another_format_4_06() -> None:
    async with listening() as bench:
        beyond = (numbers.BLOCK2, Block(9, False, 6).encode())
        assert (await ask(bench, b"", [*CORE, beyond], numbers.GET)).dotted == "4.00"
        assert (await ask(bench, b"", [*CORE, (numbers.ACCEPT, b"\x32")], numbers.GET)).dotted == "4.06"


async def test_a_payload_in_blocks_is_answered_with_its_blocks() -> None:
    payload = b"[%s]" % b",".join(reading(value=value)[1:-1] for value in range(100))
    async with listening() as bench:
        with Peer(bench) as peer:
            blocks = [payload[at : at + 64] for at in range(0, len(payload), 64)]
            for number, block in enumerate(blocks):
                more = number < len(blocks) - 1
                option = Block(number, more, 2).encode()
                answer = await peer.ask(block, [*SENML, (numbers.BLOCK1, option)])
                assert answer.dotted == ("2.31" if more else "2.04")
                assert answer.option(numbers.BLOCK1) == option
    assert bench.producer.values_of("room/t") == list(range(100))


async def test_blocks_that_do_not_follow_are_4_08_and_kept_as_a_reject() -> None:
    async with listening() as bench:
        with Peer(bench) as peer:
            for number, more, code in ((0, True, "2.31"), (2, False, "4.08")):
                option = (numbers.BLOCK1, Block(number, more, 0).encode())
                answer = await peer.ask(b"%d" % number * 16, [*SENML, option])
                assert answer.dotted == code
    assert [(one.reason, one.original) for one in bench.producer.rejects] == [("malformed", b"0" * 16 + b"2" * 16)]


async def test_a_payload_that_is_too_large_is_4_13_with_the_size_that_is_not() -> None:
    async with listening() as bench:
        option = (numbers.BLOCK1, Block(0, True, 0).encode())
        size = (numbers.SIZE1, encode_uint(MAX_PACK_BYTES + 1))
        answer = await ask(bench, b"x" * 16, [*SENML, option, size])
        assert (answer.dotted, answer.option(numbers.SIZE1)) == ("4.13", encode_uint(MAX_PACK_BYTES))
    assert [one.reason for one in bench.producer.rejects] == ["too_large"]


async def test_a_block_of_the_reserved_size_is_4_00() -> None:
    async with listening() as bench:
        assert (await ask(bench, b"x" * 16, [*SENML, (numbers.BLOCK1, Block(0, True, 7).encode())])).dotted == "4.00"
    assert readings_kept(bench) == 0
