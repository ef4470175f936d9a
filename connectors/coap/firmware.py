"""Firmware over CoAP: ``GET /firmware/NAME/VERSION``, in blocks (Block2, RFC 7959 §2.4)."""

from __future__ import annotations

from connectors.coap import numbers
from connectors.coap.options import Fault, encode_uint
from connectors.coap.parts import part_of
from connectors.coap.requests import Answer, Request, error
from isotherm.errors import Unavailable
from isotherm.firmware import Firmware

ETAG_BYTES = 8
"""Of the image's SHA-256: tells the blocks of one image from those of another (RFC 7252 §5.10.6)."""


async def block(request: Request, firmware: Firmware) -> Answer:
    """Return the block of an image that a request asks for; its peer has shown who it is."""
    target = request.target
    try:
        image = await firmware.get(*target.path[1:])
        if image is None:
            return error(numbers.NOT_FOUND, f"there is no firmware {'/'.join(target.path[1:])[:150]}")
        part = part_of(target, image.size, request.room_for_payload())
        if isinstance(part, Fault):
            return error(part.code, part.text)
        begin = part.number * part.size if part is not None else 0
        end = min(image.size, begin + part.size) if part is not None else image.size
        data = await firmware.read(image, begin, end)
    except Unavailable as reason:
        return error(numbers.SERVICE_UNAVAILABLE, str(reason))
    options = [
        (numbers.ETAG, bytes.fromhex(image.sha256)[:ETAG_BYTES]),
        (numbers.CONTENT_FORMAT, encode_uint(numbers.OCTETS)),
    ]
    if part is not None:
        options += [(numbers.BLOCK2, part.encode()), (numbers.SIZE2, encode_uint(image.size))]
    return Answer(numbers.CONTENT, options, data)
