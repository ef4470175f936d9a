"""Which block of an answer a request asks for (Block2, RFC 7959 §2.4)."""

from __future__ import annotations

from connectors.coap import numbers
from connectors.coap.options import Block, Fault, Target

_LARGEST = 6
"""The exponent of the largest block, 1,024 bytes."""


def part_of(target: Target, length: int, room: int) -> Block | Fault | None:
    """Return which block of an answer to send; None for all of it.

    Args:
        target: What the request says.
        length: Of the whole, bytes.
        room: How many bytes an answer may have.
    """
    asked = target.block2
    if asked is None and room >= length:
        return None
    exponent, number = min(asked.exponent if asked else _LARGEST, _LARGEST), asked.number if asked else 0
    begin = number << exponent + 4
    while exponent and 16 << exponent > room:
        exponent -= 1
    if begin >= length:
        return Fault(numbers.BAD_REQUEST, f"block {number} begins after the end")
    size = 16 << exponent
    return Block(begin // size, begin + size < length, exponent)
