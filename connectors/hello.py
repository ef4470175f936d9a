"""The hello with which a connection of lines or messages may begin: who the peer is, and what it wants to hear."""

from __future__ import annotations

import msgspec


class Hello(msgspec.Struct, forbid_unknown_fields=True):
    """``{"hello":{"device":"room-1","token":"…","ack":true,"commands":true}}``

    Attributes:
        device: Whose metrics bare names are.
        token: Of that device or of its gateway.
        ack: Whether to acknowledge; a WebSocket always does.
        commands: Whether to send the device's commands; what it says of them is a line or message ``{"reply":{…}}``.
    """

    device: str | None = None
    token: str | None = None
    ack: bool = False
    commands: bool = False


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    hello: Hello


_decode = msgspec.json.Decoder(_Line).decode


def hello_in(line: bytes) -> Hello | None:
    """Return the hello that a line or message is, or None when it is something else."""
    if b'"hello"' not in line:
        return None
    try:
        return _decode(line).hello
    except msgspec.DecodeError:
        return None
