"""The signature of an image of firmware: Ed25519 (RFC 8032) over a text that names it.

    isotherm firmware
    thermostat
    1.2.0
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Name, version and SHA-256 are signed, so an image cannot be passed off as another one or a later one. The private key stays
with whoever makes the images: what the platform has cannot sign. Connectors, which only hand images out, do without
this module and its library.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from isotherm.errors import BadField
from isotherm.firmware.image import MAX_BYTES, Image, check_name


def signed_text(name: str, version: str, sha256: str) -> bytes:
    """Return what is signed of an image."""
    return f"isotherm firmware\n{name}\n{version}\n{sha256}\n".encode()


def signed(key: Ed25519PrivateKey, name: str, version: str, data: bytes) -> Image:
    """Return an image, signed.

    Raises:
        BadField: it cannot be one.
    """
    check_name("name", name)
    check_name("version", version)
    if not 0 < len(data) <= MAX_BYTES:
        raise BadField("image", f"the image has {len(data):,} bytes", f"1 to {MAX_BYTES:,} bytes")
    sha256 = hashlib.sha256(data).hexdigest()
    signature = base64.b64encode(key.sign(signed_text(name, version, sha256))).decode()
    return Image(name=name, version=version, size=len(data), sha256=sha256, signature=signature, key=key_id(public_of(key)))


def is_signed_by(public: str, image: Image) -> bool:
    """Tell whether an image has a signature that a public key, Base64, confirms."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
        key.verify(base64.b64decode(image.signature, validate=True), signed_text(image.name, image.version, image.sha256))
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def public_of(key: Ed25519PrivateKey) -> str:
    """Return the public key of a private one: its 32 bytes in Base64."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def key_id(public: str) -> str:
    """Return what a public key, Base64, is known by.

    Raises:
        BadField: it is none.
    """
    try:
        raw = base64.b64decode(public, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error) as error:
        raise BadField("key", "this is no Ed25519 public key", "its 32 bytes in Base64") from error
    return hashlib.sha256(raw).hexdigest()[:16]


def new_key() -> Ed25519PrivateKey:
    """Return a new private key."""
    return Ed25519PrivateKey.generate()


def key_to_pem(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as it is kept in a file (PKCS #8, RFC 5958)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_from_pem(pem: bytes) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        BadField: it is none, or needs a password.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadField(
            "key",
            "this is no private key",
            "a PEM file of an Ed25519 key without password; `isotherm firmware new-key` makes one",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadField("key", "the private key is of another kind", "an Ed25519 key; `isotherm firmware new-key` makes one")
    return key
