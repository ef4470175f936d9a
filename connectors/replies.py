"""What devices say of what they were asked to do."""

from __future__ import annotations

from typing import Annotated

import msgspec

from connectors.identity import Identity
from isotherm.commands.command import MAX_ERROR_CHARS, MAX_RESULT_BYTES
from isotherm.errors import InvalidReading


class Reply(msgspec.Struct, forbid_unknown_fields=True):
    """What a device says of a command, or of its configuration.

        {"id":"…","result":…}      {"id":"…","error":"…"}      {"id":"…","received":true}
        {"id":"configuration-7","result":{…}}      {"id":"configuration-7","progress":40}

    Attributes:
        id: Of the command.
        device: Whose command it was, where a gateway replies for its child.
        result: What came of it, anything that JSON can say.
        error: Why it cannot be done.
        received: Nothing is said but that the device has it.
        progress: Nothing but how far it is with its configuration, %.
    """

    id: str
    device: str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: str | None = None
    received: bool = False
    progress: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None


_decode = msgspec.json.Decoder(Reply).decode


def reply_of(identity: Identity, data: bytes) -> tuple[str, Reply]:
    """Return a device and the reply that a peer has sent for it: no white space in its result, some text in its error.

    Raises:
        InvalidReading: it is none, says too much, or is for a device for which the peer may not speak.
    """
    try:
        reply = _decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidReading("malformed", f"{error}; expected a reply such as {{'id':'…','result':…}}") from error
    device = reply.device or identity.device
    if device is None or not identity.may_name(device):
        raise InvalidReading("identity", f"a reply for {device!r}, for which the peer may not speak")
    if isinstance(reply.result, msgspec.Raw):
        reply.result = msgspec.Raw(msgspec.json.format(bytes(reply.result), indent=-1))
    elif reply.error is None and reply.progress is None and not reply.received:
        raise InvalidReading("no_value", "a reply has a result, an error, progress, or received")
    length = len(bytes(reply.result)) if isinstance(reply.result, msgspec.Raw) else 0
    if length > MAX_RESULT_BYTES or len(reply.error or "") > MAX_ERROR_CHARS:
        limits = f"at most {MAX_RESULT_BYTES:,} bytes, or {MAX_ERROR_CHARS:,} characters of an error"
        raise InvalidReading("too_large", f"the reply to {reply.id[:40]!r}, expected {limits}")
    if reply.error == "":
        reply.error = "the device says no more"
    return device, reply


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    reply: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def reply_in(line: bytes) -> bytes | None:
    """Return the reply that a line or message ``{"reply":{…}}`` holds, or None when it is something else."""
    if b'"reply"' not in line:
        return None
    try:
        return bytes(_decode_line(line).reply)
    except (msgspec.DecodeError, RecursionError):
        return None
