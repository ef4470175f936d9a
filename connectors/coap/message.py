"""Messages in datagrams (RFC 7252 §3).

    |  0 1  |  2 3  | 4 … 7 | 8 … 15 |  16 … 31   |
    | ver=1 | type  |  TKL  |  code  | message id | token, TKL bytes | options | 0xFF | payload |

No I/O: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.coap.numbers import ACK, EMPTY, MAX_TOKEN_BYTES, RST
from connectors.coap.options import MessageFormatError, Option, encode_options

HEADER_BYTES = 4
VERSION = 1
_RESERVED_CLASSES = (1, 6, 7)


@dataclass(frozen=True, slots=True)
class Header:
    """The first bytes of a message.

    Attributes:
        kind: CON, NON, ACK or RST.
        code: A byte; see `numbers`.
        id: The message id.
        token: Ties a response to its request.
    """

    kind: int
    code: int
    id: int
    token: bytes


def is_coap(datagram: bytes) -> bool:
    """Tell whether a datagram has a header of our version; others are to be ignored (§3)."""
    return len(datagram) >= HEADER_BYTES and datagram[0] >> 6 == VERSION


def decode_header(datagram: bytes) -> Header:
    """Read the header of a message that `is_coap`.

    Raises:
        MessageFormatError: it is none (§3, §4.1, §4.2).
    """
    first, code = datagram[0], datagram[1]
    length = first & 15
    if length > MAX_TOKEN_BYTES:
        raise MessageFormatError(f"a token of {length} bytes, expected at most {MAX_TOKEN_BYTES}")
    if len(datagram) < HEADER_BYTES + length:
        raise MessageFormatError("the message ends within its token")
    if code == EMPTY and len(datagram) > HEADER_BYTES:
        raise MessageFormatError("an empty message with something after its header (RFC 7252 §4.1)")
    if code >> 5 in _RESERVED_CLASSES:
        raise MessageFormatError(f"a code of the reserved class {code >> 5}")
    return Header(first >> 4 & 3, code, datagram[2] << 8 | datagram[3], datagram[HEADER_BYTES : HEADER_BYTES + length])


def encode(kind: int, code: int, id: int, token: bytes = b"", options: Sequence[Option] = (), payload: bytes = b"") -> bytes:
    """Return a message's bytes."""
    head = bytes((VERSION << 6 | kind << 4 | len(token), code, id >> 8, id & 255))
    return head + token + encode_options(options, payload)


def empty_ack(id: int) -> bytes:
    """Say that a confirmable message has come."""
    return encode(ACK, EMPTY, id)


def reset(id: int) -> bytes:
    """Say that a message cannot be processed; also the answer to a ping (§4.3)."""
    return encode(RST, EMPTY, id)
