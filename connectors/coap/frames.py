"""Messages in a stream (RFC 8323 §3.2), cut out of it.

    | 0 … 3  | 4 … 7 |                                  |        |                  |
    | length |  TKL  | extended length, 0, 1, 2 or 4 B  |  code  | token, TKL bytes | options | 0xFF | payload |

``length`` counts what stands after the token. No I/O: bytes in, frames out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from connectors.coap.numbers import MAX_TOKEN_BYTES
from connectors.coap.options import MessageFormatError
from isotherm.limits import MAX_PACK_BYTES, MAX_REJECT_RAW_BYTES

MAX_MESSAGE_BYTES = MAX_PACK_BYTES + 4096
"""What we say we take (Max-Message-Size): the largest payload, and options."""

_EXTENSIONS = {13: (1, 13), 14: (2, 269), 15: (4, 65_805)}
"""Length's nibble → bytes of the extended length, and what it counts from."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A message.

    Attributes:
        code: A byte; see `numbers`.
        token: Ties a response to its request.
        rest: Options and payload; of a message that is too large, its head.
        size: Bytes of the rest; more than there are when the message is too large.
    """

    code: int
    token: bytes
    rest: bytes
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether the message was not too large."""
        return len(self.rest) == self.size


@dataclass(frozen=True, slots=True)
class _Head:
    size: int
    code_at: int
    token_length: int

    @property
    def rest_at(self) -> int:
        return self.code_at + 1 + self.token_length


class Framer:
    """Cuts one stream. A message that is too large costs its head; the stream goes on after it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    @property
    def is_inside_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer) or self._skip > 0

    @property
    def head(self) -> bytes:
        """What there is of a message that has not ended, as much of it as a reject keeps."""
        return bytes(self._buffer[:MAX_REJECT_RAW_BYTES])

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the messages that end, or turn out to be too large, within the bytes that came.

        Raises:
            MessageFormatError: the stream cannot be read any further.
        """
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        at = 0
        try:
            while (head := _head_of(self._buffer, at)) is not None:
                end = head.rest_at + head.size
                is_whole = head.size <= MAX_MESSAGE_BYTES
                kept = end if is_whole else head.rest_at + min(head.size, MAX_REJECT_RAW_BYTES)
                if len(self._buffer) < kept:
                    break
                code, token = self._buffer[head.code_at], bytes(self._buffer[head.code_at + 1 : head.rest_at])
                frame = Frame(code, token, bytes(self._buffer[head.rest_at : kept]), head.size)
                at = min(end, len(self._buffer))
                self._skip = end - at
                yield frame
        finally:
            del self._buffer[:at]


def _head_of(buffer: bytearray, at: int) -> _Head | None:
    """Read the head of the message that begins at ``at``; None when it is not all there."""
    if at >= len(buffer):
        return None
    nibble, token_length = buffer[at] >> 4, buffer[at] & 15
    if token_length > MAX_TOKEN_BYTES:
        raise MessageFormatError(f"a token of {token_length} bytes, expected at most {MAX_TOKEN_BYTES}")
    width, base = _EXTENSIONS.get(nibble, (0, nibble))
    code_at = at + 1 + width
    if len(buffer) < code_at + 1 + token_length:
        return None
    return _Head(base + int.from_bytes(buffer[at + 1 : code_at], "big"), code_at, token_length)


def encode_frame(code: int, token: bytes, rest: bytes) -> bytes:
    """Return a message's bytes.

    >>> [frame] = Framer().feed(encode_frame(0x44, b"t", b"x" * 300))
    >>> frame.code == 0x44, frame.token, len(frame.rest)
    (True, b't', 300)
    """
    size = len(rest)
    for nibble, (width, base) in reversed(_EXTENSIONS.items()):
        if size >= base:
            head = bytes((nibble << 4 | len(token),)) + (size - base).to_bytes(width, "big")
            break
    else:
        head = bytes((size << 4 | len(token),))
    return head + bytes((code,)) + token + rest
