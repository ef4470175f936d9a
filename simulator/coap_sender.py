"""A sender of confirmable CoAP POSTs for `isotherm bench`: cheap, so that it measures the server and not itself.

Messages are written as bytes (RFC 7252 §3). Each is sent again, after 2 s and then twice as long each time, until it is
acknowledged; a separate response is acknowledged too (§5.2.2). Unlike a device, it has many requests open at a time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

ACK_TIMEOUT = 2.5
MAX_RETRANSMIT = 4

_CON, _ACK = 0, 2
_POST, _CHANGED, _EMPTY = 0x02, 0x44, 0x00
_READINGS = b"\xb8readings\x11\x6e\xff"
"""Options of the request: Uri-Path ``readings``, Content-Format 110; and the payload's marker."""

Heard = Callable[[float, str | None], None]
"""Is called with how long an answer took, s, and with what was wrong, if anything was."""


class CoapSender:
    """One endpoint."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((host, port))
        self._id = 0
        self._open: dict[int, tuple[bytes, float, Heard]] = {}  # by id: datagram, when it was first sent
        self._again: dict[int, tuple[float, float, int]] = {}  # by id: when to send it again, the time-out, how often still
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def post(self, payload: bytes, heard: Heard) -> None:
        """Send a SenML array."""
        self._id = id = (self._id + 1) & 0xFFFF
        name = id.to_bytes(2, "big")  # message id, and token
        datagram = b"\x42\x02" + name + name + _READINGS + payload
        now = time.monotonic()
        self._open[id] = datagram, now, heard
        self._again[id] = now + ACK_TIMEOUT, ACK_TIMEOUT, MAX_RETRANSMIT
        self._send(datagram)

    def send_again(self) -> int:
        """Send again what is due; returns how many messages that were. Call it every half second or so."""
        now = time.monotonic()
        due = [id for id, (at, _, _) in self._again.items() if now >= at]
        for id in due:
            _, timeout, left = self._again.pop(id)
            if not left:
                self._settle(id, f"no answer within {now - self._open[id][1]:.0f} s")
            else:
                self._again[id] = now + timeout * 2, timeout * 2, left - 1
                self._send(self._open[id][0])
        return len(due)

    def close(self) -> None:
        """Hear nothing more."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                answer = self._socket.recv(2048)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # the server is not there; the time-out tells
            self._hear(answer)

    def _hear(self, answer: bytes) -> None:
        kind, length, code = answer[0] >> 4 & 3, answer[0] & 15, answer[1]
        if code == _EMPTY:
            self._again.pop(int.from_bytes(answer[2:4], "big"), None)  # its answer comes separately
            return
        if kind == _CON:
            self._send(bytes((0x40 | _ACK << 4, _EMPTY)) + answer[2:4])
        id = int.from_bytes(answer[4 : 4 + length], "big")
        self._settle(id, None if code == _CHANGED else f"{code >> 5}.{code & 31:02} {answer[4 + length :]!r}")

    def _settle(self, id: int, problem: str | None) -> None:
        self._again.pop(id, None)
        if (found := self._open.pop(id, None)) is not None:
            _, sent_at, heard = found
            heard(time.monotonic() - sent_at, problem)

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.send(datagram)
        except (BlockingIOError, ConnectionRefusedError):
            return  # as if it were lost: it is sent again


def array_of(lines: bytes) -> bytes:
    """Return lines of NDJSON as a SenML array.

    >>> array_of(b'{"n":"a"}\\n{"n":"b"}\\n')
    b'[{"n":"a"},{"n":"b"}]'
    """
    return b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]"
