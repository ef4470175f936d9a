"""CoAP messages as bytes: options, datagrams, streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.coap import frames, message, numbers
from connectors.coap.frames import MAX_MESSAGE_BYTES, Framer, encode_frame
from connectors.coap.numbers import CON, NON
from connectors.coap.options import (
    MAX_CACHED,
    Block,
    MessageFormatError,
    Targets,
    decode_options,
    encode_options,
    encode_uint,
    target_of,
)
from isotherm.limits import MAX_PACK_BYTES

OPTIONS = st.lists(st.tuples(st.integers(0, 65_535), st.binary(max_size=300)), max_size=6)


@given(OPTIONS, st.binary(max_size=50))
def test_options_are_read_as_they_were_written(options: list[tuple[int, bytes]], payload: bytes) -> None:
    written = encode_options(options, payload)
    assert decode_options(written) == (sorted(options, key=lambda option: option[0]), payload)


@given(st.binary(max_size=40))
def test_bytes_are_options_or_an_error(data: bytes) -> None:
    try:
        options, payload = decode_options(data)
    except MessageFormatError:
        return
    assert sum(len(value) for _, value in options) + len(payload) <= len(data)


@given(OPTIONS, st.binary(max_size=50), st.binary(max_size=50))
def test_a_head_that_was_seen_before_says_the_same(options: list[tuple[int, bytes]], first: bytes, second: bytes) -> None:
    targets = Targets()
    for payload in (first, second, first):
        written = encode_options(options, payload)
        assert targets.read(b"xx" + written, 2) == (target_of(decode_options(written)[0]), payload)


def test_remembered_heads_are_bounded() -> None:
    targets = Targets()
    for number in range(MAX_CACHED + 5):
        targets.read(encode_options([(numbers.URI_QUERY, b"%d" % number)], b""), 0)
    assert len(targets._known) <= MAX_CACHED


def test_a_payload_marker_without_a_payload_is_an_error_each_time() -> None:
    targets = Targets()
    head = encode_options([(numbers.URI_PATH, b"readings")], b"")
    assert targets.read(head, 0)[0].path == ("readings",)
    for _ in range(2):
        with pytest.raises(MessageFormatError, match="marker"):
            targets.read(head + b"\xff", 0)


@pytest.mark.parametrize(
    "data",
    [b"\xf0", b"\x0f", b"\xd0", b"\xe0\x00", b"\x0d", b"\x0e\x01", b"\x05abc", b"\xff"],
    ids=["delta 15", "length 15", "no delta", "half a delta", "no length", "half a length", "half a value", "no payload"],
)
def test_what_is_cut_off_or_reserved_is_an_error(data: bytes) -> None:
    with pytest.raises(MessageFormatError):
        decode_options(data)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ([(9, b"")], numbers.BAD_OPTION, "critical option 9"),
        ([(1, b"x")], numbers.BAD_OPTION, "critical option 1"),  # If-Match
        ([(numbers.URI_PATH, b"\xff")], numbers.BAD_OPTION, "UTF-8"),
        ([(numbers.ACCEPT, b"xxx")], numbers.BAD_OPTION, "option 17 with 3 bytes"),
        ([(numbers.ACCEPT, b"x"), (numbers.ACCEPT, b"x")], numbers.BAD_OPTION, "option 17"),
        ([(numbers.PROXY_URI, b"coap://x/")], numbers.PROXYING_NOT_SUPPORTED, "proxy"),
        ([(numbers.PROXY_SCHEME, b"coap")], numbers.PROXYING_NOT_SUPPORTED, "proxy"),
    ],
)
def test_what_must_be_understood_and_is_not_is_a_fault(options: list[tuple[int, bytes]], code: int, text: str) -> None:
    fault = target_of(options).fault
    assert fault is not None and fault.code == code and text in fault.text


def test_elective_options_that_are_not_understood_are_passed_over() -> None:
    wrong_lengths = [(numbers.CONTENT_FORMAT, b"xxx"), (numbers.SIZE1, b"12345"), (65_534, b"?")]
    assert target_of(wrong_lengths).fault is None
    assert target_of(wrong_lengths).content_format is None


def test_a_token_is_taken_from_the_query_or_the_option() -> None:
    assert target_of([(numbers.URI_QUERY, b"x=1"), (numbers.URI_QUERY, b"token=abc")]).token == "abc"
    assert target_of([(numbers.DEVICE_TOKEN, b"abc")]).token == "abc"


@pytest.mark.parametrize(("number", "value"), [(0, b""), (1, b"\x01"), (255, b"\xff"), (256, b"\x01\x00")])
def test_numbers_have_no_leading_zeros(number: int, value: bytes) -> None:
    assert encode_uint(number) == value


@pytest.mark.parametrize("block", [Block(0, False, 0), Block(1, True, 6), Block(0xFFFFF, True, 7)])
def test_a_block_option_is_read_as_it_was_written(block: Block) -> None:
    assert Block.decode(block.encode()) == block


@pytest.mark.parametrize(
    "datagram",
    [
        message.encode(CON, numbers.EMPTY, 1) + b"x",
        b"\x49\x02\x00\x01" + b"123456789",
        b"\x44\x02\x00\x01" + b"12",
        message.encode(CON, numbers.code(1, 0), 1),
        message.encode(NON, numbers.code(6, 1), 1),
    ],
    ids=["empty with a payload", "token of 9 bytes", "half a token", "class 1", "class 6"],
)
def test_a_header_that_is_none_is_an_error(datagram: bytes) -> None:
    with pytest.raises(MessageFormatError):
        message.decode_header(datagram)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=8), st.binary(max_size=400)), max_size=5), st.integers(1, 50)
)
def test_a_stream_gives_the_same_messages_however_it_is_cut(sent: list[tuple[int, bytes, bytes]], size: int) -> None:
    framer = Framer()
    stream = b"".join(encode_frame(*one) for one in sent)
    found = [frame for at in range(0, len(stream), size) for frame in framer.feed(stream[at : at + size])]
    assert [(frame.code, frame.token, frame.rest) for frame in found] == sent
    assert not framer.is_inside_message


@pytest.mark.parametrize("size", [0, 12, 13, 268, 269, 65_804, 65_805, 100_000])
def test_lengths_are_extended_as_they_must(size: int) -> None:
    [frame] = Framer().feed(encode_frame(2, b"", b"x" * size))
    assert len(frame.rest) == size == frame.size


@pytest.mark.parametrize("cut", [1, 7, 65_536, 2_000_000])
def test_a_message_that_is_too_large_costs_its_head_and_the_stream_goes_on(
    cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE_BYTES", 100)
    monkeypatch.setattr(frames, "MAX_REJECT_RAW_BYTES", 10)
    stream = encode_frame(2, b"big", b"x" * 1000) + encode_frame(2, b"ok", b"y")
    framer = Framer()
    found = [frame for at in range(0, len(stream), cut) for frame in framer.feed(stream[at : at + cut])]
    assert [(frame.token, len(frame.rest), frame.size, frame.is_whole) for frame in found] == [
        (b"big", 10, 1000, False),
        (b"ok", 1, 1, True),
    ]
    assert len(framer._buffer) == 0


def test_the_largest_payload_fits_into_a_message() -> None:
    assert MAX_MESSAGE_BYTES > MAX_PACK_BYTES


def test_a_token_that_is_too_long_ends_the_stream() -> None:
    with pytest.raises(MessageFormatError, match="token of 9"):
        list(Framer().feed(b"\x09\x02"))
