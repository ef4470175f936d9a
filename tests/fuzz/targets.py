"""What must hold for any bytes: one function for each parser. They raise when it does not.

Hang is the fuzzer's to see (``-timeout``); everything else is asserted here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from unittest.mock import patch

from connectors.coap import frames, message, options
from connectors.coap.options import MessageFormatError
from connectors.formats import lines, senml, senml_cbor, thingsboard
from connectors.formats.decoded import Decoded, Decoder
from connectors.formats.graphite import GraphiteDecoder
from connectors.formats.hook import HookDecoder
from connectors.formats.influx import InfluxDecoder
from connectors.formats.lines import LineFramer
from connectors.formats.number import NumberDecoder
from isotherm import rejects

NOW = 1_790_000_000_000_000
REASONS = frozenset(re.findall(r"^([a-z_]+)  ", rejects.__doc__ or "", re.MULTILINE)) - {"reason"}

_anything = HookDecoder("anything", json.loads)
_influx, _graphite, _number = InfluxDecoder(), GraphiteDecoder(), NumberDecoder("temperature")


def senml_lines(data: bytes) -> None:
    """SenML, a record or an array a line."""
    readings, refused = _check(senml.decode_lines(data, NOW))
    # An array may hold any number; a record of base fields alone is neither.
    plain = [line for line in data.split(b"\n") if line.strip() and not re.search(rb'\[|"b|\\u', line)]
    assert readings + refused >= len(plain)


def senml_json(data: bytes) -> None:
    """One SenML array in JSON."""
    _check(senml.decode_payload(data, NOW))


def senml_cbor_payload(data: bytes) -> None:
    """One SenML array in CBOR."""
    _check(senml_cbor.decode_payload(data, NOW))


def influx(data: bytes) -> None:
    """InfluxDB line protocol: each line is readings and attributes, or one reject."""
    found = list(_influx(data, NOW))
    readings, refused = _check(iter(found))
    if b'"' in data:  # attributes do not say where they were
        return
    expected = [line for line in _not_blank(data) if not line.strip(b" \t").startswith(b"#")]
    at = {source[0] for piece in found for source in _sources(piece)} | {one.at for piece in found for one in piece.rejects}
    assert len(at) == len(expected)
    assert refused + (readings > 0) <= len(expected) <= readings + refused
    assert (readings, refused) == _one_by_one(_influx, data)


def graphite(data: bytes) -> None:
    """Graphite's plain text: each line is one reading or one reject."""
    readings, refused = _check(_graphite(data, NOW))
    assert readings + refused == len(_not_blank(data))
    assert (readings, refused) == _one_by_one(_graphite, data)


def number(data: bytes) -> None:
    """One number: one finite reading or one reject."""
    found = list(_number(data, NOW))
    assert sum(_check(iter(found))) == 1
    assert all(math.isfinite(value) for piece in found for value in piece.value)


def thingsboard_device(data: bytes) -> None:
    """ThingsBoard's telemetry of a device: no payload is nothing, and each reject is the same by itself."""
    _check_alone(thingsboard.decode_payload, data)


def thingsboard_gateway(data: bytes) -> None:
    """ThingsBoard's telemetry of a gateway: the same."""
    _check_alone(thingsboard.decode_gateway_payload, data)


def hook(data: bytes) -> None:
    """A decoder of the user's that yields anything, here what JSON can say: a payload is refused once at most."""
    readings, refused = _check(_anything(data, NOW))
    assert refused <= 1 <= readings + refused


def line_framer(data: bytes) -> None:
    """However a stream is cut, the same lines come out, and of those that are too long the lengths."""
    longest = 64  # so that short inputs have too long lines
    with patch.object(lines, "MAX_LINE_BYTES", longest):
        assert _framed(data[1:], data[0] % longest + 1 if data else 1) == _framed(data[1:], longest)


def coap_message(data: bytes) -> None:
    """A datagram: a message, whose options are written as they were read, or none."""
    if not message.is_coap(data):
        return
    try:
        header = message.decode_header(data)
        found, payload = options.decode_options(data, 4 + len(header.token))
    except MessageFormatError:
        return
    again = message.encode(header.kind, header.code, header.id, header.token, found, payload)
    assert len(again) <= len(data)  # a head may be longer than it must
    assert options.decode_options(again, 4 + len(header.token)) == (found, payload)
    target, same = options.Targets().read(data, 4 + len(header.token))
    assert same == payload and target == options.target_of(found)
    assert target.fault is None or target.fault.text.encode()


def coap_frames(data: bytes) -> None:
    """However a stream is cut, the same messages come out."""
    with patch.object(frames, "MAX_MESSAGE_BYTES", 64):
        assert _messages(data[1:], data[0] % 64 + 1 if data else 1) == _messages(data[1:], 1 << 20)


def broken(data: bytes) -> None:
    """Breaks a promise, so that a test can see that it is seen."""
    assert b"\n" not in data


TARGETS: dict[str, Callable[[bytes], None]] = {
    "senml_lines": senml_lines,
    "senml_json": senml_json,
    "senml_cbor": senml_cbor_payload,
    "influx": influx,
    "graphite": graphite,
    "number": number,
    "thingsboard": thingsboard_device,
    "thingsboard-gateway": thingsboard_gateway,
    "hook": hook,
    "line_framer": line_framer,
    "coap_message": coap_message,
    "coap_frames": coap_frames,
}
"""Every parser there is."""


def _check(pieces: Iterator[Decoded]) -> tuple[int, int]:
    """Run a decoder to its end; return the numbers of readings and attributes, and of rejects."""
    readings = refused = 0
    for piece in pieces:
        assert len(piece.names) == len(piece.time) == len(piece.value)
        assert piece.seq is None or len(piece.seq) == len(piece.names)
        assert str(piece.time.dtype) == "int64" and str(piece.value.dtype) == "float64"
        assert all(isinstance(name, str) for name in piece.names)
        for at, raw in _sources(piece):
            assert at >= 0 and raw
        for one in piece.rejects:
            assert one.reason in REASONS, one.reason
            assert one.detail and isinstance(one.raw, bytes)
            one.detail.encode()  # must be fit for JSON
        readings += len(piece.names) + len(piece.attributes)
        refused += len(piece.rejects)
    return readings, refused


def _check_alone(decode: Decoder, data: bytes) -> None:
    """Decode a payload of values, and once more each part of it by itself: reading by reading, reject by reject."""
    found = list(decode(data, NOW))
    assert sum(_check(iter(found))) > 0
    for piece in found:
        for one in piece.rejects:
            assert one.raw == data or b"\n" not in one.raw
            assert [again.reason for part in decode(one.raw, NOW) for again in part.rejects] == [one.reason]
        for i, (_, raw) in enumerate(_sources(piece)):
            [alone] = decode(raw, NOW)
            row = (piece.names[i], piece.time[i], piece.value[i])
            assert [row] == list(zip(alone.names, alone.time, alone.value, strict=True))


def _one_by_one(decode: Decoder, data: bytes) -> tuple[int, int]:
    """Decode each line by itself: whether it is good must not depend on the lines beside it."""
    counts = [_check(decode(line, NOW)) for line in data.split(b"\n")]
    return sum(readings for readings, _ in counts), sum(refused for _, refused in counts)


def _sources(piece: Decoded) -> list[tuple[int, bytes]]:
    return [piece.source(i) for i in range(len(piece.names))]


def _not_blank(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line.strip(b" \t\r")]


def _framed(stream: bytes, size: int) -> tuple[list[bytes], list[int | None]]:
    framer = LineFramer()
    whole: list[bytes] = []
    too_long: list[int | None] = []
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    for found, refused in [*map(framer.feed, chunks), framer.finish()]:
        whole += found.removesuffix(b"\n").split(b"\n") if found else []
        too_long += [one.size for one in refused]
    return whole, too_long


def _messages(stream: bytes, size: int) -> tuple[list[tuple[int, bytes, bytes, int]], bool]:
    framer = frames.Framer()
    found: list[tuple[int, bytes, bytes, int]] = []
    try:
        for at in range(0, len(stream), size):
            for one in framer.feed(stream[at : at + size]):
                found.append((one.code, one.token, one.rest, one.size))  # those before an error count
    except MessageFormatError:
        return found, False
    return found, True
