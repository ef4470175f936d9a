"""InfluxDB line protocol: what names come out, every kind of value, escape and error, and that no line is lost."""

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.formats import escape
from connectors.formats.decoded import Decoded
from connectors.formats.influx import PRECISIONS, InfluxDecoder
from connectors.formats.lines import LineFramer
from isotherm.limits import MAX_ATTRIBUTE_CHARS
from isotherm.pack import Attribute
from tests.support.formats import NOW, REASONS, Row, cases, joined, reasons, rows

CASES = cases("influx")


def decode(data: bytes, decoder: InfluxDecoder | None = None) -> Decoded:
    return joined((decoder or InfluxDecoder())(data, NOW))


def test_all_cases_are_found() -> None:
    assert len(CASES) == 16


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_gives_what_is_expected(case: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())
    data = (case / "input.txt").read_bytes()
    decoder = InfluxDecoder(precision=expected.get("precision", "ns"))
    for _ in range(2):  # once with nothing remembered, once with every name
        found = decode(data, decoder)
        assert [list(row) for row in rows(found)] == expected["readings"]
        assert [list(one) for one in found.attributes] == expected["attributes"]
        assert [[one.at, one.reason, one.raw.decode("latin-1")] for one in found.rejects] == expected["rejects"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("temperature,device=room-1 value=21.5", "room-1/temperature"),
        ("cpu,cpu=cpu0,host=h usage_idle=1", "h/cpu/cpu:cpu0/usage_idle"),
        ("m,host=h,device=d value=1", "d/m/host:h"),
        ("m,z=1,device=d,a=2 f=1", "d/m/a:2/z:1/f"),
        ("m,device=a/b x/y=1", "a_2Fb/m/x/y"),
        (r"my\ m,device=hall\ 2 a\=b=1", "hall_202/my_20m/a_3Db"),
        ("m,device=d,unit=C° value=1", "d/m/unit:C_C2_B0"),
    ],
)
def test_names(line: str, name: str) -> None:
    assert rows(decode(line.encode())) == [(name, NOW, 1.0 if line.endswith("=1") else 21.5)]


def test_the_tags_that_name_the_device_can_be_chosen() -> None:
    decoder = InfluxDecoder(device_tags=["sensor"])
    assert rows(decode(b"m,host=h,sensor=s value=1", decoder)) == [("s/m/host:h", NOW, 1.0)]
    found = decode(b"m,host=h value=1", decoder)
    assert reasons(found) == ["no_device"]
    assert "sensor" in found.rejects[0].detail


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1", 1.0), ("1.", 1.0), ("-.5", -0.5), ("+2", 2.0), ("1e3", 1000.0), ("1E-2", 0.01), ("0012", 12.0)],
        *[
            ("12i", 12.0),
            ("-12i", -12.0),
            ("12u", 12.0),
            ("9223372036854775807i", 2.0**63),
            ("18446744073709551615u", 2.0**64),
        ],
        *[(word, 1.0) for word in ("t", "T", "true", "True", "TRUE")],
        *[(word, 0.0) for word in ("f", "F", "false", "False", "FALSE")],
    ],
)
def test_values(text: str, value: float) -> None:
    assert rows(decode(f"m,device=d value={text}".encode())) == [("d/m", NOW, value)]


@pytest.mark.parametrize(
    "text",
    [
        *[
            "x",
            "1_0",
            "--1",
            "1e",
            "e1",
            ".",
            "+",
            "NaN",
            "inf",
            "-Infinity",
            "0x1",
            "1.5i",
            "i",
            "-1u",
            "tRUE",
            "truei",
            "1f",
        ],
        *["9223372036854775808i", "-9223372036854775809i", "18446744073709551616u", "9" * 5000 + "i"],
        *["\t1", "١", "1\u00a0", 'a"b"'],
    ],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    found = decode(f"m,device=d good=1,value={text}".encode())
    assert reasons(found) == ["type"]
    assert rows(found) == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(precision: str) -> None:
    unit_ns = PRECISIONS[precision]
    stamp = NOW * 1000 // unit_ns
    found = decode(f"m,device=d value=1 {stamp}\nm,device=d value=1 -{stamp}".encode(), InfluxDecoder(precision=precision))
    assert found.time.tolist() == [stamp * unit_ns // 1000, -stamp * unit_ns // 1000]


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected one of ns"):
        InfluxDecoder(precision="fortnight")


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [("9" * 19, "time"), ("-" + "9" * 25, "time"), ("9" * 26, "malformed"), ("1.5", "malformed"), ("now", "malformed")],
)
def test_times_out_of_range_are_refused(stamp: str, reason: str) -> None:
    assert reasons(decode(f"m,device=d value=1 {stamp}".encode(), InfluxDecoder(precision="h"))) == [reason]


def test_text_of_the_greatest_length_is_an_attribute_and_longer_text_is_refused() -> None:
    text = "x" * MAX_ATTRIBUTE_CHARS
    assert decode(f'm,device=d fw="{text}"'.encode()).attributes == [Attribute("d/m/fw", NOW, text)]
    assert reasons(decode(f'm,device=d fw="{text}x"'.encode())) == ["attribute"]


def test_a_line_or_head_that_is_too_long_is_refused() -> None:
    """Each field's name repeats the head: 64 KB could become a gigabyte of names, and take a quarter of a minute."""
    fields = ",".join(f"v{i}=1" for i in range(4000))
    for tags in ("t=" + "x" * 30_000, ",".join(f"t{i}=1" for i in range(4000))):
        begun = time.process_time()
        assert reasons(decode(f"m,device=d,{tags} {fields}".encode())) == ["name"]
        assert reasons(decode(f'm,device=d,{tags} {fields},s=""'.encode())) == ["name"]
        assert time.process_time() - begun < 0.5
    assert reasons(decode(b"m,device=d " + b"v=1," * 16_384 + b"v=1")) == ["line_too_long"]


def test_every_reading_can_show_its_line() -> None:
    found = decode(b'\nm,device=d a=1,b=2\r\nm,device=d s="\n",c=3\nm,device=d d=4')
    first, string = b"m,device=d a=1,b=2", b'm,device=d s="\n",c=3'
    assert [found.source(i) for i in range(4)] == [(2, first), (2, first), (3, string), (5, b"m,device=d d=4")]


def test_pieces_are_bounded_and_complete() -> None:
    good, special = b"m,device=d value=1\n", b"m,device=d\\ 2 value=1\n"
    assert [len(piece.names) for piece in InfluxDecoder()(good * 4500, NOW)] == [2000, 2000, 500]
    assert max(len(piece.names) for piece in InfluxDecoder()(special * 4500, NOW)) <= 200
    assert len(decode(special * 4500).names) == 4500


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escape, "MAX_CACHED_NAMES", 3)
    decoder = InfluxDecoder()
    lines = [f"m,device=d{i} value=1" for i in range(8)] + ["m,device=d " + "x" * 600 + "=1"]
    for _ in range(2):
        assert rows(decode("\n".join(lines).encode(), decoder))[7][0] == "d7/m"
        assert 0 < len(decoder._names) <= 3


@dataclass
class Point:
    """One line, as a client would have it."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | bool | str]
    time: int | None

    def line(self) -> str:
        """Write it, as the documentation says."""
        tags = "".join(f",{_escaped(key)}={_escaped(value)}" for key, value in self.tags.items())
        fields = ",".join(f"{_escaped(key)}={_value(value)}" for key, value in self.fields.items())
        stamp = "" if self.time is None else f" {self.time * 1000}"
        return f"{_escaped(self.measurement, ', ')}{tags} {fields}{stamp}"

    def name(self, field: str) -> str:
        """Return the name that the class's docstring promises."""
        tags = "".join(f"/{_hex(key)}:{_hex(value)}" for key, value in sorted(self.tags.items()) if key != "device")
        return f"{_hex(self.tags['device'], '')}/{_hex(self.measurement)}{tags}" + (
            "" if field == "value" else f"/{_hex(field)}"
        )


def _escaped(text: str, special: str = ",= ") -> str:
    return "".join("\\" + char if char in special else char for char in text)


def _value(value: float | bool | str) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value) if isinstance(value, bool) else repr(value)


def _hex(text: str, extra: str = "/") -> str:
    plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-:._" + extra
    return "".join(char if char in plain else "".join(f"_{byte:02X}" for byte in char.encode()) for char in text)


# A word that ends in a backslash, or has one before what is escaped, cannot be written in line protocol.
_words = st.text(st.characters(exclude_characters="\n\r\t\\", exclude_categories=["Cs"]), min_size=1, max_size=3)
_safe = _words.filter(lambda word: not word.startswith("#"))
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_points = st.builds(
    Point,
    measurement=_safe,
    tags=st.builds(lambda tags, device: tags | {"device": device}, st.dictionaries(_words, _words, max_size=2), _words),
    fields=st.dictionaries(
        _words, st.one_of(_numbers, st.booleans(), st.text(st.characters(exclude_categories=["Cs"]))), min_size=1
    ),
    time=st.none() | st.integers(0, 4 * 10**15),
)


@given(st.lists(_points, max_size=8))
def test_what_a_client_writes_is_read_back(points: list[Point]) -> None:
    found = decode("\n".join(point.line() for point in points).encode())
    fields = [
        (point.name(key), NOW if point.time is None else point.time, value)
        for point in points
        for key, value in point.fields.items()
    ]
    assert not found.rejects
    assert rows(found) == [(name, time, float(value)) for name, time, value in fields if not isinstance(value, str)]
    assert found.attributes == [Attribute(name, time, value) for name, time, value in fields if isinstance(value, str)]


def feed(data: bytes, sizes: list[int]) -> tuple[list[Row], list[Attribute], list[tuple[str, bytes]]]:
    """Decode a stream that arrives in chunks."""
    decoder, framer, found = InfluxDecoder(), LineFramer(), []
    while data:
        size = sizes.pop() if sizes else 1
        found.append(decode(framer.feed(data[:size])[0], decoder))
        data = data[size:]
    found.append(decode(framer.finish()[0], decoder))
    return (
        [row for part in found for row in rows(part)],
        [one for part in found for one in part.attributes],
        [(one.reason, one.raw) for part in found for one in part.rejects],
    )


_LINES = [
    b"m,device=d value=1 5",
    b'm,device=d s="x y",v=2i\r',
    b"# m,device=d v=1",
    b"",
    b"bogus",
    b"m v=1",
    b"m,device=\xff v=1",
]


@given(st.lists(st.sampled_from(_LINES), max_size=8), st.lists(st.integers(1, 50), max_size=20))
def test_a_stream_gives_the_same_however_it_is_cut(lines: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(lines)
    assert feed(data, []) == feed(data, sizes) == feed(data, [len(data) or 1])


_mutations = st.builds(
    lambda line, at, bit: line[: at % len(line)] + bit + line[at % len(line) + 1 :],
    st.sampled_from(
        [b"m,device=d value=1 5", b"m,a=b,host=h a=1i,b=t,c=-.5", b"m\\ ,device=\\= a\\ =1", b'm,device=d s="x\\"y"']
    ),
    st.integers(0, 100),
    st.sampled_from([b"", b" ", b",", b"=", b"\\", b"#", b"\xff", b"\xc2\xb0", b"\t", b"\r", b"_", b"i", b"\x00"])
    | st.binary(max_size=3),
)


@given(st.lists(st.binary(max_size=30) | _mutations, max_size=6))
@example([b"m,device=a =5"])
@example([b"\t#c,device=a x=1 5"])
@example([b"m,device=a v=1,"])
def test_every_line_becomes_readings_or_exactly_one_reject(lines: list[bytes]) -> None:
    for line in lines:
        line = line.replace(b"\n", b"")
        found = decode(line)
        assert reasons(found) == [one.reason for one in found.rejects if one.reason in REASONS and one.detail]
        text = line.strip(b" \t\r")
        if not text or text.startswith(b"#"):
            assert not (found.names or found.attributes or found.rejects)
        elif found.rejects:
            assert len(found.rejects) == 1 and not found.names and not found.attributes
            assert found.rejects[0].raw == line.removesuffix(b"\r")
        else:
            assert len(found.names) + len(found.attributes) >= 1
    # And together they give what they give one by one.
    lines = [line.replace(b"\n", b"").replace(b'"', b"'") for line in lines]
    whole = decode(b"\n".join(lines))
    parts = [decode(line) for line in lines]
    assert rows(whole) == [row for part in parts for row in rows(part)]
    assert [one.raw for one in whole.rejects] == [one.raw for part in parts for one in part.rejects]


def test_time_grows_with_length_and_not_faster() -> None:
    """Patterns do not go back: inputs made to confuse them are read in a moment."""
    size = 60_000
    for text in ("\\", '="', '="\\', "\\ ", ",a=", "a=1,", " ", '"', "#", ",", "=", '\\="'):
        decode(text.encode() * (size // len(text)))
        decode(b"m,device=d v=1," + text.encode() * (size // len(text)))


def test_many_threads_of_names_do_not_meet() -> None:
    rng = random.Random(7)
    tags = {"".join(rng.choices("ab /,°", k=3)) for _ in range(200)}
    found = decode("\n".join(f"m,device=d,t={_escaped(tag)} value=1" for tag in tags).encode())
    assert len(set(found.names)) == len(tags)
