"""Firmware: images that are signed, and the keys that are trusted. A rollout gives one to devices."""

from __future__ import annotations

import uuid

from isotherm.client.exchange import Listing, Request, Steps, decoded, deleted, got, posted, segment
from isotherm.client.model import Image, Key


def firmware() -> Listing[Image]:
    """Go through images, ascending by name and version."""
    return Listing("/firmware", Image)


def image(name: str, version: str) -> Steps[Image]:
    """Return what is known of an image.

    Raises:
        NotFound: there is none.
    """
    return decoded((yield got(_path(name, version))).body, Image)


def upload_image(name: str, version: str, data: bytes, signature: str) -> Steps[Image]:
    """Keep an image; the same one may be sent again.

    Args:
        name: For what it is, such as ``thermostat``.
        version: Of it.
        data: What it consists of, at most 16 MiB.
        signature: Ed25519 over name, version and SHA-256, in Base64; see `isotherm.firmware.image.signed`.

    Raises:
        Invalid: a name is wrong, or no key that is trusted has made the signature.
        Conflict: there is another image of this name and version, or there are too many.
    """
    request = Request(
        method="PUT",
        path=_path(name, version),
        query=[("signature", signature)],
        body=data,
        headers={"content-type": "application/octet-stream"},
        is_repeatable=True,
    )
    return decoded((yield request).body, Image)


def remove_image(name: str, version: str) -> Steps[None]:
    """Forget an image: devices can load it no longer.

    Raises:
        NotFound: there is none.
    """
    yield deleted(_path(name, version))


def firmware_keys() -> Listing[Key]:
    """Go through the keys whose images are taken, ascending by id."""
    return Listing("/firmware-keys", Key)


def trust_key(public: str) -> Steps[Key]:
    """Take images from now on that are signed with a key; it may be sent again.

    Args:
        public: The 32 bytes of an Ed25519 key, in Base64.

    Raises:
        Invalid: it is no key.
        Conflict: too many are trusted.
    """
    return decoded((yield posted("/firmware-keys", {"public": public}, uuid.uuid4().hex)).body, Key)


def distrust_key(id: str) -> Steps[None]:
    """Take no more images that are signed with a key.

    Raises:
        NotFound: it is not trusted.
    """
    yield deleted(f"/firmware-keys/{segment(id)}")


def _path(name: str, version: str) -> str:
    return f"/firmware/{segment(name)}/{segment(version)}"
