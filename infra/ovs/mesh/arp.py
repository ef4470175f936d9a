"""Who has an address, and does what is sent to all come back: frames of our own on an interface."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv4Address

ARP = 0x0806
EXPERIMENTAL = 0x88B5
"""IEEE 802: for local experiments; nothing answers it."""

BROADCAST = b"\xff" * 6
PROBES = 3
PROBE_SECONDS = 0.2


def who_has(interface: str, address: IPv4Address) -> str | None:
    """Ask for an address as RFC 5227 §2.1.1 does, so that nobody learns anything wrong.

    Returns:
        The MAC of another machine that has it, or None.
    """
    with _frames(interface, ARP) as wire:
        mine = _mac(wire)
        request = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mine, bytes(4), bytes(6), address.packed)
        for _ in range(PROBES):
            wire.send(_frame(mine, ARP, request))
            for frame in _heard(wire, PROBE_SECONDS):
                sender, owner = frame[22:28], frame[28:32]
                if frame[20:22] == b"\0\2" and owner == address.packed and sender != mine:
                    return sender.hex(":")
    return None


def copies(interface: str, seconds: float) -> int:
    """Send one frame to all and count how often it comes back: not at all, unless there is a loop."""
    with _frames(interface, EXPERIMENTAL) as wire:
        sign = os.urandom(16)
        wire.send(_frame(_mac(wire), EXPERIMENTAL, sign))
        return sum(sign in frame for frame in _heard(wire, seconds))


def _frames(interface: str, kind: int) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
    wire.bind((interface, kind))
    return wire


def _mac(wire: socket.socket) -> bytes:
    return bytes(wire.getsockname()[4])


def _frame(sender: bytes, kind: int, content: bytes) -> bytes:
    return BROADCAST + sender + struct.pack("!H", kind) + content.ljust(46, b"\0")


def _heard(wire: socket.socket, seconds: float) -> list[bytes]:
    """Return what comes in within a time; what we have sent ourselves is not among it."""
    heard = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            frame, (_, _, direction, *_) = wire.recvfrom(2048)
        except socket.timeout:
            break
        if direction != socket.PACKET_OUTGOING:
            heard.append(frame)
    return heard
