"""Where images and the keys that are trusted are kept.

| key                                  | type   | content                                                      |
|--------------------------------------|--------|--------------------------------------------------------------|
| ``iso:{firmware}:images``            | hash   | ``NAME/VERSION`` → the image, as JSON                        |
| ``iso:{firmware}:bytes:SHA256``      | string | what it consists of                                          |
| ``iso:{firmware}:keys``              | hash   | id → public key, Base64                                      |
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

import msgspec

from isotherm.clock import now_us
from isotherm.errors import BadField, SettingsError
from isotherm.firmware.image import MAX_BYTES, Image, check_name
from isotherm.store.client import Client
from isotherm.store.reader import answering

MAX_IMAGES = 200
MAX_KEYS = 20
UNNAMED = timedelta(hours=1)
"""How long bytes are kept of which the upload was cut off before they had a name."""

_PREFIX = "iso:{firmware}:"
_IMAGES = _PREFIX + "images"
_KEYS = _PREFIX + "keys"


class Firmware:
    """Keeps and reads them. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def add(self, image: Image, data: bytes, by: str) -> Image:
        """Keep an image; returns it as it is kept. The same one may be added again.

        Args:
            image: What is said of it.
            data: What it consists of.
            by: Who does it.

        Raises:
            BadField: it is not what it says, or not signed with a key that is trusted.
            SettingsError: there is another one of this name and version, or there are MAX_IMAGES.
        """
        from isotherm.firmware.signing import is_signed_by

        check_name("name", image.name)
        check_name("version", image.version)
        if not 0 < len(data) <= MAX_BYTES:
            raise BadField("image", f"the image has {len(data):,} bytes", f"1 to {MAX_BYTES:,} bytes")
        sha256 = hashlib.sha256(data).hexdigest()
        image = msgspec.structs.replace(image, sha256=sha256, size=len(data), created=now_us(), by=by)
        signers = [id for id, public in (await self.keys()).items() if is_signed_by(public, image)]
        if not signers:
            rule = "an Ed25519 signature over name, version and SHA-256 by one of the keys that are trusted"
            raise BadField("signature", "the image is not signed with a key that is trusted: isotherm firmware trust", rule)
        image = msgspec.structs.replace(image, key=signers[0])
        with answering():
            images = await self._images()
            if (known := images.get(image.id)) is not None:
                if known.sha256 == image.sha256:
                    return known
                raise SettingsError(f"there is another {image.id} already: give what has changed a new version")
            if len(images) >= MAX_IMAGES:
                raise SettingsError(f"there are {len(images)} images, expected fewer than {MAX_IMAGES}: remove one first")
            await self._redis.set(_bytes(sha256), data, ex=int(UNNAMED.total_seconds()))
            await self._redis.hset(_IMAGES, mapping={image.id: msgspec.json.encode(image).decode()})
            await self._redis.persist(_bytes(sha256))
        return image

    async def all(self) -> list[Image]:
        """Return every image, by name, the newest of each first."""
        with answering():
            found = (await self._images()).values()
        return sorted(found, key=lambda one: (one.name, -one.created))

    async def get(self, name: str, version: str) -> Image | None:
        """Return an image, or None when there is none."""
        with answering():
            found = await self._redis.hget(_IMAGES, f"{name}/{version}")
        return None if found is None else msgspec.json.decode(found, type=Image)

    async def read(self, image: Image, begin: int, end: int) -> bytes:
        """Return the bytes of an image from ``begin`` up to, not including, ``end``."""
        with answering():
            return await self._redis.getrange(_bytes(image.sha256), begin, end - 1)

    async def remove(self, image: Image) -> None:
        """Forget an image: devices can load it no longer."""
        with answering():
            await self._redis.hdel(_IMAGES, image.id)
            if all(one.sha256 != image.sha256 for one in (await self._images()).values()):
                await self._redis.delete(_bytes(image.sha256))

    async def keys(self) -> dict[str, str]:
        """Return the public keys that are trusted: id → Base64."""
        with answering():
            found = await self._redis.hgetall(_KEYS)
        return {id.decode(): public.decode() for id, public in sorted(found.items())}

    async def trust(self, public: str) -> str:
        """Take images from now on that are signed with a key; returns its id.

        Raises:
            BadField: it is no key.
            SettingsError: there are MAX_KEYS.
        """
        from isotherm.firmware.signing import key_id

        id = key_id(public)
        known = await self.keys()
        if id not in known and len(known) >= MAX_KEYS:
            raise SettingsError(f"{len(known)} keys are trusted, expected fewer than {MAX_KEYS}: distrust one first")
        with answering():
            await self._redis.hset(_KEYS, mapping={id: public})
        return id

    async def distrust(self, id: str) -> bool:
        """Take no more images that are signed with a key; tells whether it was trusted."""
        with answering():
            return bool(await self._redis.hdel(_KEYS, id))

    async def _images(self) -> dict[str, Image]:
        found = await self._redis.hgetall(_IMAGES)
        return {id.decode(): msgspec.json.decode(record, type=Image) for id, record in found.items()}


def _bytes(sha256: str) -> str:
    return _PREFIX + "bytes:" + sha256
