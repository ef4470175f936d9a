"""OpenSSH public keys (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709, OpenSSH's PROTOCOL.u2f), checked before they are trusted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Sequence

from isotherm.errors import BadField

MAX_KEYS = 50
MAX_LINE_CHARS = 4_000
MIN_RSA_BITS = 2_048

_CURVES = {b"nistp256": 65, b"nistp384": 97, b"nistp521": 133}
"""Name → bytes of a point that is not compressed."""

_HINT = "a line of an OpenSSH public key file, such as ~/.ssh/id_ed25519.pub: `ssh-keygen -t ed25519` makes one"


def public_keys(text: str, field: str = "keys") -> tuple[str, ...]:
    """Return the keys of a file, a line each; empty lines and comments are skipped.

    Raises:
        BadField: there is none, there are too many, or a line is no key.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            key = _public_key(stripped, field, number)
            found.setdefault(key.split()[1], key)
    if not found:
        raise BadField(field, f"there is no key, expected {_HINT}", _HINT)
    if len(found) > MAX_KEYS:
        raise BadField(field, f"there are {len(found)} keys, expected at most {MAX_KEYS}")
    return tuple(found.values())


def fingerprint(key: str) -> str:
    """Return the fingerprint of a public key as ``ssh-keygen -l`` prints it: SHA256:…"""
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(key.split()[1])).digest()).decode().rstrip("=")


def _public_key(line: str, field: str, number: int) -> str:
    def wrong(why: str) -> BadField:
        return BadField(field, f"line {number} {why}, expected {_HINT}", _HINT)

    if "PRIVATE KEY" in line:
        raise wrong("begins a private key, which nobody but its owner should have")
    if len(line) > MAX_LINE_CHARS or not line.isprintable():
        raise wrong(f"has more than {MAX_LINE_CHARS} characters, or such as cannot be read")
    kind, *rest = line.split(maxsplit=2)
    if kind not in _KINDS:
        raise wrong(f"begins with {kind[:40]!r} and not with one of {', '.join(_KINDS)}")
    try:
        blob = base64.b64decode(rest[0] if rest else "", validate=True)
        fields = _fields(blob)
    except (binascii.Error, struct.error, ValueError) as error:
        raise wrong(f"has no key behind {kind}: it is cut off, or not in Base64") from error
    if not fields:
        raise wrong(f"has no key behind {kind}")
    if fields[0] != kind.encode():
        raise wrong(f"says {kind}, and its key is of another kind")
    if (why := _KINDS[kind](fields[1:])) is not None:
        raise wrong(why)
    return " ".join([kind, rest[0], *rest[1:]])


def _fields(blob: bytes) -> list[bytes]:
    """Split a blob into its strings, each with its length before it."""
    found, place = [], 0
    while place < len(blob):
        (length,) = struct.unpack_from(">I", blob, place)
        place += 4 + length
        if place > len(blob):
            raise ValueError("a string goes beyond the end")
        found.append(blob[place - length : place])
    return found


Check = Callable[[Sequence[bytes]], str | None]


def _is_ed25519(fields: Sequence[bytes], more: int = 0) -> str | None:
    return None if len(fields) == 1 + more and len(fields[0]) == 32 else "is no Ed25519 key: it has not 32 bytes"


def _is_ecdsa(fields: Sequence[bytes], curve: bytes, more: int = 0) -> str | None:
    is_point = len(fields) == 2 + more and fields[0] == curve and fields[1][:1] == b"\x04"
    return None if is_point and len(fields[1]) == _CURVES[curve] else f"has no point of the curve {curve.decode()}"


def _is_rsa(fields: Sequence[bytes]) -> str | None:
    if len(fields) != 2:
        return "is no RSA key: it has not an exponent and a modulus"
    exponent, modulus = (int.from_bytes(one, "big") for one in fields)
    if exponent < 3 or exponent % 2 == 0 or modulus % 2 == 0:
        return "is no RSA key: exponent or modulus is impossible"
    bits = modulus.bit_length()
    return None if bits >= MIN_RSA_BITS else f"is an RSA key of {bits} bits, which is too weak: at least {MIN_RSA_BITS}"


_KINDS: dict[str, Check] = {
    "ssh-ed25519": _is_ed25519,
    "ecdsa-sha2-nistp256": lambda fields: _is_ecdsa(fields, b"nistp256"),
    "ecdsa-sha2-nistp384": lambda fields: _is_ecdsa(fields, b"nistp384"),
    "ecdsa-sha2-nistp521": lambda fields: _is_ecdsa(fields, b"nistp521"),
    "sk-ssh-ed25519@openssh.com": lambda fields: _is_ed25519(fields, more=1),
    "sk-ecdsa-sha2-nistp256@openssh.com": lambda fields: _is_ecdsa(fields, b"nistp256", more=1),
    "ssh-rsa": _is_rsa,
}
"""Kind → what is wrong with the strings behind it, or None."""
