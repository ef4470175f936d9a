"""Bodies: read within a limit, unpacked within another, and of which format they are."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import hdrs, web

from connectors.formats.catalogue import MEDIA_TYPES, UNTYPED, detect_body, influx_form
from connectors.formats.influx import PRECISIONS
from isotherm.errors import Unavailable
from isotherm.limits import MAX_PACK_BYTES, MAX_REJECT_RAW_BYTES
from isotherm.rejects import Rejected

BODY_SECONDS = 30.0
"""How long a request's body may take to come."""

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Bodies of all connections that are being read or wait for Kafka."""

MAX_GZIP_MEMBERS = 64
"""Each costs some work, however little is in it."""

_CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_HELD = web.RequestKey("held", int)


class Refused(Exception):
    """A request as a whole is answered with an error.

    Attributes:
        status: The HTTP status.
        rejected: What goes to `rejects`.
    """

    def __init__(self, status: int, reason: str, detail: str, raw: bytes = b"", size: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.rejected = Rejected(reason, detail, raw, size=size)


class Bodies:
    """Reads the bodies of all connections, so many bytes at a time."""

    def __init__(self) -> None:
        self._held = 0

    def release(self, request: web.Request) -> None:
        """A request is answered: its body is held no longer."""
        self._held -= request.get(_HELD, 0)

    async def head(self, request: web.Request) -> bytes:
        """Return what is kept of a body that is refused unread."""
        try:
            return await self.read(request, MAX_REJECT_RAW_BYTES)
        except Refused as refused:
            return refused.rejected.raw

    async def read(self, request: web.Request, limit: int) -> bytes:
        """Return a request's body as it was sent.

        Raises:
            Refused: it has more bytes than the limit, or does not come.
            Unavailable: too much is held already.
        """
        parts: list[bytes] = []
        try:
            if request.content.is_eof():  # nearly every body comes with its head
                self._hold(request, parts, request.content.read_nowait(), limit)
            else:
                async with asyncio.timeout(BODY_SECONDS):
                    async for part in request.content.iter_any():
                        self._hold(request, parts, part, limit)
        except TimeoutError:
            detail = f"the body did not come within {BODY_SECONDS:.0f} s"
            raise Refused(408, "malformed", detail, b"".join(parts)) from None
        except (ConnectionError, web.RequestPayloadError, ValueError) as error:
            raise Refused(
                400, "malformed", f"the body broke off: {' '.join(str(error).split())}", b"".join(parts)
            ) from error
        return b"".join(parts)

    def _hold(self, request: web.Request, parts: list[bytes], part: bytes, limit: int) -> None:
        parts.append(part)
        size = request[_HELD] = request.get(_HELD, 0) + len(part)
        self._held += len(part)
        if size > limit:
            detail = f"a body of {request.content_length or f'more than {limit}'} bytes, expected at most {limit}"
            raise Refused(413, "too_large", detail, b"".join(parts), max(size, request.content_length or 0))
        if self._held > MAX_HELD_BYTES:
            raise Unavailable(f"requests of {MAX_HELD_BYTES} bytes are on their way; send it again later")


def unpacked(body: bytes, request: web.Request) -> bytes:
    """Decompress a body, as far as the limit lets it; several gzip members follow one another (RFC 1952 §2.2).

    Raises:
        Refused: it is damaged, more than MAX_PACK_BYTES comes out, or the coding is unknown.
    """
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if coding in ("identity", ""):
        return body
    if coding not in _CODINGS:
        raise Refused(415, "format", f"Content-Encoding {coding[:80]!r}, expected gzip or deflate", body)
    unpacked, rest, members = b"", body, 0
    while rest:
        unpacker = zlib.decompressobj(_CODINGS[coding])
        members += 1
        try:
            unpacked += unpacker.decompress(rest, MAX_PACK_BYTES + 1 - len(unpacked))
        except zlib.error as error:
            raise Refused(400, "malformed", f"the body cannot be unpacked: {error}", body) from error
        if len(unpacked) > MAX_PACK_BYTES:
            raise Refused(413, "too_large", f"a body that unpacks to more than {MAX_PACK_BYTES} bytes", body)
        if not unpacker.eof:
            raise Refused(400, "malformed", "the body's compressed data ends early", body)
        rest = unpacker.unused_data
        if rest and members == MAX_GZIP_MEMBERS:
            raise Refused(400, "malformed", f"more than {MAX_GZIP_MEMBERS} gzip members, expected at most so many", body)
    return unpacked


def form_of(request: web.Request, body: bytes) -> str:
    media_type = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if media_type in UNTYPED:
        return detect_body(body)
    try:
        return MEDIA_TYPES[media_type]
    except KeyError:
        detail = f"Content-Type {media_type[:80]!r}, expected one of {', '.join(MEDIA_TYPES)} or text/plain"
        raise Refused(415, "format", detail, body) from None


def influx_form_of(request: web.Request, body: bytes) -> str:
    precision = request.query.get("precision", "ns")
    if precision not in PRECISIONS:
        detail = f"precision {precision[:20]!r}, expected one of {', '.join(PRECISIONS)}"
        raise Refused(400, "malformed", detail, body)
    return influx_form(precision)
