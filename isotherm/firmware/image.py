"""An image of firmware: what is known of it, and what it may be called."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from isotherm.clock import iso
from isotherm.errors import BadField

MAX_BYTES = 16 * 1024 * 1024
NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
"""What names of firmware, and versions, match."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image; it is never changed.

    Attributes:
        name: For what it is, such as ``thermostat``.
        version: Of it.
        size: Bytes.
        sha256: Of its bytes, hexadecimal.
        signature: Ed25519, in Base64.
        key: Id of the key that it is signed with.
        created: When it was uploaded, µs since the epoch UTC.
        by: By whom.
    """

    name: str
    version: str
    size: int
    sha256: str
    signature: str
    key: str
    created: int = 0
    by: str = ""

    @property
    def id(self) -> str:
        """What it is called."""
        return f"{self.name}/{self.version}"

    def for_device(self) -> dict[str, Any]:
        """Return what a device is told of it, as the value of ``firmware`` in its configuration."""
        told = {name: getattr(self, name) for name in ("name", "version", "size", "sha256", "signature", "key")}
        return told | {"path": f"firmware/{self.id}"}


def described(one: Image) -> dict[str, Any]:
    """Return what people and programs are told of an image: plain values, times as ISO 8601."""
    return msgspec.to_builtins(one) | {"created": iso(one.created)}  # type: ignore[no-any-return]


def check_name(field: str, text: str) -> None:
    """See that a text may be the name or version of an image.

    Raises:
        BadField: it may not.
    """
    if not re.fullmatch(NAME, text):
        rule = "1 to 64 letters, digits and _ . -, the first a letter or digit"
        raise BadField(field, f"{field} is {text[:80]!r}", rule)
