"""CoAP fuzzed packet by packet, over real sockets: whatever comes, the endpoint goes on and nobody else notices.

``ISOTHERM_FUZZ_PACKETS=1000000`` makes it long (`make fuzz`).
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest

from connectors.coap import message, numbers
from connectors.coap.frames import encode_frame
from connectors.coap.numbers import ACK, CON, NON, RST
from connectors.coap.options import Block, Option, encode_options
from tests.support.coap import SENML, Peer, StreamPeer, listening, reading, readings_kept

PACKETS = int(os.environ.get("ISOTHERM_FUZZ_PACKETS", "20000"))
AT_ONCE = 50
"""Packets after which the endpoint must show that it is there; few enough for the kernel's buffer."""

LONGEST_SECONDS = 3600.0

_PATHS = [[b"readings"], [b"devices", b"room", b"readings"], [b".well-known", b"core"], [b"\xff"], [b""] * 20, []]
_PAYLOADS = [reading("fuzz/t"), b"[]", b"{", b"\xff\x00", b"x" * 16, b"x" * 64, b"[" * 5000, b""]
_KNOWN = [1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 17, 20, 23, 27, 28, 35, 39, 60, 258, 292, 65_002, 65_535]


def some_options(dice: random.Random) -> list[Option]:
    options: list[Option] = [(numbers.URI_PATH, part) for part in dice.choice(_PATHS)]
    if dice.random() < 0.5:
        options.append((numbers.CONTENT_FORMAT, dice.choice([b"", b"\x6e", b"\x70", b"\x32", b"\x3c", b"\xff\xff"])))
    if dice.random() < 0.4:
        block = Block(dice.choice([0, 0, 0, 1, 2, 0xFFFFF]), dice.random() < 0.7, dice.choice([0, 0, 2, 6, 7]))
        options.append((dice.choice([numbers.BLOCK1, numbers.BLOCK2]), block.encode()))
    for _ in range(dice.choice([0, 0, 0, 1, 3])):
        options.append((dice.choice(_KNOWN), dice.randbytes(dice.choice([0, 1, 2, 4, 9, 300]))))
    return options


def spoilt(packet: bytes, dice: random.Random) -> bytes:
    """Flip bytes, cut, or lengthen; half of the time leave it."""
    match dice.randrange(8):
        case 0:
            return packet[: dice.randrange(len(packet) + 1)]
        case 1:
            return packet + dice.randbytes(dice.randrange(20))
        case 2 | 3 if packet:
            changed = bytearray(packet)
            for _ in range(dice.randrange(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            return bytes(changed)
    return packet


def some_datagram(dice: random.Random) -> bytes:
    if dice.random() < 0.05:
        return dice.randbytes(dice.randrange(100))
    kind = dice.choice([CON, CON, CON, NON, NON, ACK, RST])
    code = dice.choice([numbers.POST] * 6 + [numbers.GET, numbers.EMPTY, numbers.CHANGED, dice.randrange(256)])
    payload = dice.choice(_PAYLOADS)
    token = dice.randbytes(dice.choice([0, 1, 2, 8]))
    return spoilt(message.encode(kind, code, dice.randrange(100), token, some_options(dice), payload), dice)


def some_frame(dice: random.Random) -> bytes:
    code = dice.choice([numbers.POST] * 6 + [numbers.GET, numbers.CSM, numbers.PING, dice.randrange(256)])
    rest = encode_options(some_options(dice), dice.choice(_PAYLOADS))
    return spoilt(encode_frame(code, dice.randbytes(dice.choice([0, 1, 8])), rest), dice)


def watched() -> list[dict[str, Any]]:
    """Return a list that gets what goes wrong in the event loop."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    return problems


@pytest.mark.timeout(LONGEST_SECONDS)
@pytest.mark.parametrize("auth", ["open", "token"])
async def test_no_datagram_stops_the_endpoint(auth: str) -> None:
    dice = random.Random(7252)
    problems = watched()
    async with listening(LONGEST_SECONDS, auth=auth) as bench:
        bench.registry.add("honest")
        shown: Option = (numbers.DEVICE_TOKEN, b"s-honest")
        with Peer(bench) as honest:
            for turn in range(PACKETS // AT_ONCE):
                with Peer(bench) as peer:
                    for _ in range(AT_ONCE):
                        peer.send(some_datagram(dice))
                assert (await honest.ask(reading("honest/t", turn), [*SENML, shown])).dotted == "2.04"
                assert problems == []
    assert bench.producer.values_of("honest/t") == list(range(PACKETS // AT_ONCE))
    assert {one.reason for one in bench.producer.rejects} >= {"malformed", "auth" if auth == "token" else "format"}
    assert readings_kept(bench) > PACKETS // AT_ONCE or auth == "token"  # some packets are good


@pytest.mark.timeout(LONGEST_SECONDS)
async def test_no_stream_stops_the_others() -> None:
    dice = random.Random(8323)
    problems = watched()
    async with listening(LONGEST_SECONDS) as bench, StreamPeer(bench) as honest:
        await honest.greet()
        for turn in range(PACKETS // AT_ONCE):
            async with StreamPeer(bench) as peer:
                peer.send(numbers.CSM)
                peer.writer.write(b"".join(some_frame(dice) for _ in range(AT_ONCE)))
                assert (await honest.ask(reading("honest/t", turn))).dotted == "2.04"
            assert problems == []
    assert bench.producer.values_of("honest/t") == list(range(PACKETS // AT_ONCE))
