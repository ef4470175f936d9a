"""Firmware over HTTP: ``GET /api/v1/firmware/NAME/VERSION``, whole or a range of it (RFC 9110 §14)."""

from __future__ import annotations

from aiohttp import hdrs, web

from connectors.http.answers import problem
from isotherm.errors import Unavailable
from isotherm.firmware import Firmware

PIECE_BYTES = 64 * 1024
"""How much is read from the store at once."""

_MAX_DIGITS = 20
"""Of a place in an image: what is longer lies beyond its end, and more digits than so Python may refuse to read."""


async def serve(request: web.Request, firmware: Firmware) -> web.StreamResponse:
    """Answer with an image, or a range of it, to a peer that may have it."""
    name, version = request.match_info["name"], request.match_info["version"]
    try:
        image = await firmware.get(name, version)
        if image is None:
            return problem(404, f"there is no firmware {name[:80]}/{version[:80]}", reason="firmware")
        tag = f'"{image.sha256}"'
        headers: dict[str, str] = {hdrs.ETAG: tag, hdrs.ACCEPT_RANGES: "bytes"}
        if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        status, begin, end = 200, 0, image.size
        if request.headers.get(hdrs.IF_RANGE, tag) == tag and hdrs.RANGE in request.headers:
            part = _part(request, image.size)
            if part is None:
                unmet: dict[str, str] = {hdrs.CONTENT_RANGE: f"bytes */{image.size}"}
                return problem(416, f"the image has {image.size} bytes", reason="malformed", headers=unmet)
            status, (begin, end) = 206, part
            headers[hdrs.CONTENT_RANGE] = f"bytes {begin}-{end - 1}/{image.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = end - begin
        first = await firmware.read(image, begin, min(begin + PIECE_BYTES, end))
    except Unavailable as error:
        return problem(503, str(error), reason="unavailable")
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    await response.write(first)
    try:
        for at in range(begin + PIECE_BYTES, end, PIECE_BYTES):
            await response.write(await firmware.read(image, at, min(at + PIECE_BYTES, end)))
    except Unavailable as error:
        raise ConnectionResetError("the store went away while an image was sent") from error
    await response.write_eof()
    return response


def _part(request: web.Request, size: int) -> tuple[int, int] | None:
    """Return from where to where a request wants it, or None when that is no range of it; of several, the first alone."""
    unit, _, ranges = request.headers[hdrs.RANGE].partition("=")
    first, dash, last = ranges.partition(",")[0].strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not (first + last).isascii() or not (first + last).isdigit():
        return None
    first, last = first[:_MAX_DIGITS], last[:_MAX_DIGITS]
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
    return (begin, end) if begin < end else None
