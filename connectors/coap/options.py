"""Options: how they stand in a message (RFC 7252 §3.1), and what those of a request say.

    |  0 … 3 | 4 … 7  |                                    each option: how much its number is greater than the last one's,
    | delta  | length | extended delta | extended length | value   and its length; 13 and 14 mean 1 or 2 further bytes

No I/O: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.coap import numbers

Option = tuple[int, bytes]
"""Number and value."""

MAX_CACHED = 10_000
"""Heads of requests that are remembered with what they say: a device sends the same one with every request."""

MAX_CACHED_BYTES = 256
"""Length of a head that is remembered."""

_EXTENDED_1, _EXTENDED_2, _RESERVED = 13, 14, 15


class MessageFormatError(ValueError):
    """Bytes that are no CoAP message (RFC 7252 §3)."""


@dataclass(frozen=True, slots=True)
class Block:
    """The value of a Block option (RFC 7959 §2.2).

    Attributes:
        number: Of the block, from 0.
        more: Whether others follow.
        exponent: SZX: blocks have 2 ** (exponent + 4) bytes; 7 is not for datagrams.
    """

    number: int
    more: bool
    exponent: int

    @property
    def size(self) -> int:
        """Bytes of a block that is not the last."""
        return 16 << min(self.exponent, 6)

    def encode(self) -> bytes:
        """Return the option's value."""
        return encode_uint(self.number << 4 | self.more << 3 | self.exponent)

    @classmethod
    def decode(cls, value: bytes) -> Block:
        """Read the option's value.

        >>> Block.decode(Block(3, True, 6).encode())
        Block(number=3, more=True, exponent=6)
        """
        number = int.from_bytes(value, "big")
        return cls(number >> 4, bool(number & 8), number & 7)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a request's options: the code that says so, and a diagnostic text."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's options say.

    Attributes:
        path, query: Of the URI, by their segments.
        content_format: Of the payload, or None.
        accept: Of the answer, or None.
        block1, block2: Which block this is of the payload, and which one of the answer is asked for.
        observe: 0 to hear of changes, 1 to hear of them no longer (RFC 7641 §2), or None.
        size1: Bytes of the whole payload, if said.
        no_response: Classes of answers that are not wanted, as bits (RFC 7967 §2.1).
        token: A device's token.
        tag: Tells payloads in blocks apart (RFC 9175 §3).
        fault: Why the request cannot be served, or None.
    """

    path: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    content_format: int | None = None
    accept: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    observe: int | None = None
    size1: int | None = None
    no_response: int = 0
    token: str | None = None
    tag: bytes = b""
    fault: Fault | None = None


class Targets:
    """Reads what stands after a message's token; heads are remembered, because a device sends the same one each time."""

    def __init__(self) -> None:
        self._known: dict[bytes, Target] = {}

    def read(self, data: bytes, at: int) -> tuple[Target, bytes]:
        """Return what the options say, and the payload.

        Args:
            data: A message.
            at: Where its options begin.

        Raises:
            MessageFormatError: they do not end, or the payload's marker has no payload after it.
        """
        # A head that was read to its end before is a head here too: options are read from the front, byte by byte.
        marker = data.find(b"\xff", at)
        target = self._known.get(data[at:marker] if marker >= 0 else data[at:])
        if target is not None:
            if marker < 0:
                return target, b""
            if marker + 1 < len(data):
                return target, data[marker + 1 :]
        options, payload = decode_options(data, at)
        target = target_of(options)
        head = data[at : len(data) - len(payload) - 1] if payload else data[at:]
        if target.block1 is None and len(head) <= MAX_CACHED_BYTES:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[head] = target
        return target, payload


def decode_options(data: bytes, at: int = 0) -> tuple[list[Option], bytes]:
    """Read options from ``at`` up to the payload's marker or the end; returns them and the payload.

    Raises:
        MessageFormatError: they do not end, or the payload's marker has no payload after it.
    """
    options: list[Option] = []
    number = 0
    end = len(data)
    while at < end:
        head = data[at]
        at += 1
        if head == numbers.PAYLOAD_MARKER:
            if at == end:
                raise MessageFormatError("a payload marker without a payload (RFC 7252 §3)")
            return options, data[at:]
        delta, at = _extended(data, head >> 4, at)
        length, at = _extended(data, head & 15, at)
        number += delta
        if at + length > end:
            raise MessageFormatError(f"option {number} has {length} bytes, {end - at} are left")
        options.append((number, data[at : at + length]))
        at += length
    return options, b""


def _extended(data: bytes, nibble: int, at: int) -> tuple[int, int]:
    """Return a delta or length, and where reading goes on."""
    if nibble < _EXTENDED_1:
        return nibble, at
    size = {_EXTENDED_1: 1, _EXTENDED_2: 2}.get(nibble)
    if size is None or at + size > len(data):
        raise MessageFormatError("an option's head is reserved or cut off (RFC 7252 §3.1)")
    return int.from_bytes(data[at : at + size], "big") + (13 if size == 1 else 269), at + size


def encode_options(options: Sequence[Option], payload: bytes) -> bytes:
    """Return what stands after a message's token.

    Args:
        options: In any order; those of one number stay in theirs.
        payload: May be empty.

    >>> decode_options(encode_options([(60, b"x" * 300), (1000, b"")], b"hello"))[1]
    b'hello'
    """
    parts: list[bytes] = []
    last = 0
    for number, value in sorted(options, key=lambda option: option[0]):
        delta, delta_more = _shortened(number - last)
        length, length_more = _shortened(len(value))
        parts += bytes((delta << 4 | length,)), delta_more, length_more, value
        last = number
    if payload:
        parts += b"\xff", payload
    return b"".join(parts)


def _shortened(number: int) -> tuple[int, bytes]:
    if number < 13:
        return number, b""
    if number < 269:
        return _EXTENDED_1, bytes((number - 13,))
    return _EXTENDED_2, (number - 269).to_bytes(2, "big")


def encode_uint(number: int) -> bytes:
    """Return an option's value of format uint (RFC 7252 §3.2): big-endian, without leading zeros."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


_LENGTHS = {
    numbers.URI_HOST: (1, 255),
    numbers.OBSERVE: (0, 3),
    numbers.URI_PORT: (0, 2),
    numbers.URI_PATH: (0, 255),
    numbers.URI_QUERY: (0, 255),
    numbers.CONTENT_FORMAT: (0, 2),
    numbers.ACCEPT: (0, 2),
    numbers.BLOCK1: (0, 3),
    numbers.BLOCK2: (0, 3),
    numbers.SIZE1: (0, 4),
    numbers.PROXY_URI: (1, 1034),
    numbers.PROXY_SCHEME: (1, 255),
    numbers.NO_RESPONSE: (0, 1),
    numbers.REQUEST_TAG: (0, 8),
    numbers.DEVICE_TOKEN: (1, 255),
}
"""Bytes of each option that we know; one with another length counts as unknown (RFC 7252 §5.4.3)."""

_REPEATABLE = (numbers.URI_PATH, numbers.URI_QUERY, numbers.REQUEST_TAG)


def target_of(options: Sequence[Option]) -> Target:
    """Say what a request's options mean; critical ones that we do not know are a fault (RFC 7252 §5.4.1)."""
    found: dict[int, list[bytes]] = {}
    fault = None
    for number, value in options:
        least, most = _LENGTHS.get(number, (0, -1))
        is_known = least <= len(value) <= most and (number in _REPEATABLE or number not in found)
        if is_known:
            found.setdefault(number, []).append(value)
        elif number & 1 and fault is None:
            fault = Fault(numbers.BAD_OPTION, f"critical option {number} with {len(value)} bytes is not understood")
    if numbers.PROXY_URI in found or numbers.PROXY_SCHEME in found:
        fault = Fault(numbers.PROXYING_NOT_SUPPORTED, "this is no proxy")
    try:
        path = tuple(value.decode() for value in found.get(numbers.URI_PATH, ()))
        query = tuple(value.decode() for value in found.get(numbers.URI_QUERY, ()))
    except UnicodeDecodeError:
        path = query = ()
        fault = fault or Fault(numbers.BAD_OPTION, "Uri-Path and Uri-Query are UTF-8 (RFC 7252 §5.10)")

    def one(number: int) -> bytes | None:
        return found[number][0] if number in found else None

    def uint(number: int) -> int | None:
        return None if (value := one(number)) is None else int.from_bytes(value, "big")

    def block(number: int) -> Block | None:
        return None if (value := one(number)) is None else Block.decode(value)

    token = next((part.removeprefix("token=") for part in query if part.startswith("token=")), None)
    if (shown := one(numbers.DEVICE_TOKEN)) is not None:
        token = shown.decode(errors="replace")
    return Target(
        path=path,
        query=query,
        content_format=uint(numbers.CONTENT_FORMAT),
        accept=uint(numbers.ACCEPT),
        block1=block(numbers.BLOCK1),
        block2=block(numbers.BLOCK2),
        observe=uint(numbers.OBSERVE),
        size1=uint(numbers.SIZE1),
        no_response=uint(numbers.NO_RESPONSE) or 0,
        token=token,
        tag=b"\0".join(found.get(numbers.REQUEST_TAG, ())),
        fault=fault,
    )
