"""Cuts a stream of bytes into lines, bounds their length, and finds the next line after one that is too long."""

from __future__ import annotations

from isotherm.limits import MAX_LINE_BYTES, MAX_REJECT_RAW_BYTES
from isotherm.rejects import Rejected

MAX_CHUNK_BYTES = MAX_LINE_BYTES
"""Feed at most so much at once: then only a chunk's first line can be too long."""


class LineFramer:
    """Holds the line that has begun and not ended."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipped = 0  # length of a too long line so far; its head is in _rest

    @property
    def is_inside_line(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> tuple[bytes, list[Rejected]]:
        """Take the next bytes of the stream.

        Args:
            chunk: At most MAX_CHUNK_BYTES.

        Returns:
            Complete lines, each with its newline; and the too long lines that ended here.
        """
        rejects: list[Rejected] = []
        if self._skipped:
            end = chunk.find(b"\n")
            if end < 0:
                self._skipped += len(chunk)
                return b"", rejects
            rejects.append(self._too_long(self._skipped + end))
            chunk = chunk[end + 1 :]
        last = chunk.rfind(b"\n")
        if last < 0:
            self._rest += chunk
            if len(self._rest) > MAX_LINE_BYTES:
                self._skipped = len(self._rest)
                del self._rest[MAX_REJECT_RAW_BYTES:]
            return b"", rejects
        if self._rest:
            first = chunk.find(b"\n")
            if len(self._rest) + first > MAX_LINE_BYTES:
                length = len(self._rest) + first
                self._rest += chunk[:first]
                rejects.append(self._too_long(length))
                lines = chunk[first + 1 : last + 1]
            else:
                lines = bytes(self._rest) + chunk[: last + 1]
        else:
            lines = chunk[: last + 1]
        self._rest = bytearray(chunk[last + 1 :])
        return lines, rejects

    def finish(self) -> tuple[bytes, list[Rejected]]:
        """Return what the stream's end leaves: a last line without newline, or a too long one."""
        if self._skipped:
            return b"", [self._too_long(self._skipped)]
        rest, self._rest = bytes(self._rest), bytearray()
        return rest, []

    def _too_long(self, length: int) -> Rejected:
        head, self._rest, self._skipped = bytes(self._rest), bytearray(), 0
        detail = f"a line of {length} bytes, expected at most {MAX_LINE_BYTES}"
        return Rejected("line_too_long", detail, head[:MAX_REJECT_RAW_BYTES], size=length)
