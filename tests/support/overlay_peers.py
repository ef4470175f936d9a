"""What pods of a test say to each other: a program of its own, run in their namespaces.

serve ADDRESS PORT       take one connection, print {"peer": address, "bytes": n, "sha256": …}
send ADDRESS PORT BYTES  send so many random bytes, print {"sha256": …}
listen INTERFACE         print "listening", count shouts until none has come for QUIET_SECONDS, print {"heard": n}
shout INTERFACE COUNT    send so many frames to all
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import sys
from collections.abc import Callable

SHOUT = 0x88B5
"""An EtherType for local experiments (IEEE 802)."""

SIGN = b"isotherm shouts "
QUIET_SECONDS = 0.5
WAIT_SECONDS = 20.0
STORM = 100_000
"""So many are a storm; nobody counts on."""


def serve(address: str, port: str) -> None:
    """Take one connection and say who came with what."""
    with socket.create_server((address, int(port))) as server:
        server.settimeout(WAIT_SECONDS)
        print("listening", flush=True)
        connection, peer = server.accept()
        digest, size = hashlib.sha256(), 0
        with connection:
            connection.settimeout(WAIT_SECONDS)
            while part := connection.recv(2**16):
                digest.update(part)
                size += len(part)
    print(json.dumps({"peer": peer[0], "bytes": size, "sha256": digest.hexdigest()}), flush=True)


def send(address: str, port: str, size: str) -> None:
    """Send random bytes."""
    content = random.Random(os.getpid()).randbytes(int(size))
    with socket.create_connection((address, int(port)), timeout=WAIT_SECONDS) as connection:
        connection.sendall(content)
    print(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}), flush=True)


def listen(interface: str) -> None:
    """Count shouts."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(SHOUT)) as wire:
        wire.bind((interface, SHOUT))
        wire.settimeout(WAIT_SECONDS)
        print("listening", flush=True)
        heard = 0
        try:
            while heard < STORM:
                frame, (_, _, direction, *_) = wire.recvfrom(2048)
                heard += SIGN in frame and direction != socket.PACKET_OUTGOING
                wire.settimeout(QUIET_SECONDS)
        except TimeoutError:
            pass
    print(json.dumps({"heard": heard}), flush=True)


def shout(interface: str, count: str) -> None:
    """Send frames to all."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(SHOUT)) as wire:
        wire.bind((interface, SHOUT))
        sender = wire.getsockname()[4]
        for number in range(int(count)):
            wire.send(b"\xff" * 6 + sender + SHOUT.to_bytes(2, "big") + SIGN + number.to_bytes(4, "big") + bytes(26))


COMMANDS: dict[str, Callable[..., None]] = {"serve": serve, "send": send, "listen": listen, "shout": shout}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
