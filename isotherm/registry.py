"""The registry: which devices there are, who may speak for them, and with which tokens.

    | key                             | type   | content                                                     |
    |---------------------------------|--------|-------------------------------------------------------------|
    | ``iso:{registry}:devices``      | zset   | name → when it was first seen or added, µs                  |
    | ``iso:{registry}:device:NAME``  | hash   | is_gateway, gateway, type, labels, tokens (hashes),         |
    |                                 |        | mosquitto (hash)                                            |
    | ``iso:{registry}:version``      | string | how often the registry was changed                          |
    | ``iso:{registry}:children:NAME``| set    | the devices that a gateway may speak for                    |
    | ``iso:{registry}:token:HASH``   | string | name of the device that a token belongs to                  |

All keys share a hash tag, so that a transaction may touch several. A token is 192 random bits and only its SHA-256 is kept:
who reads the store cannot send with it. A device has at most two, so that one can be replaced while the other works.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import BadField, Changed, SettingsError, Unavailable
from isotherm.limits import MAX_LABEL_CHARS, MAX_LABELS
from isotherm.names import is_device_name, is_label
from isotherm.store.client import Client
from isotherm.store.script import Script

MAX_TOKENS = 2
"""Tokens of one device that are valid at the same time."""

TOKEN_BYTES = 24

_PREFIX = "iso:{registry}:"
_DEVICES = _PREFIX + "devices"
_VERSION = _PREFIX + "version"
_AT_ONCE = 1_000  # devices that are read in one go


@dataclass(frozen=True, slots=True)
class Device:
    """What the registry knows of a device.

    Attributes:
        name: Its name.
        created: When it was first seen or added, µs since the epoch UTC.
        is_gateway: Whether it may speak for its children.
        gateway: The gateway that speaks for it, or empty.
        tokens: Hashes of its tokens, newest first.
        children: The devices it may speak for, if it is a gateway.
        type: What kind of device it is, or empty; a decoder of the user's may be for it.
        mosquitto: Hash of its newest token, as mosquitto keeps passwords.
        labels: What people sort devices by: words, and ``key=value`` with one value for each key.
    """

    name: str
    created: int
    is_gateway: bool = False
    gateway: str = ""
    tokens: Sequence[str] = ()
    children: frozenset[str] = frozenset()
    type: str = ""
    mosquitto: str = ""
    labels: frozenset[str] = frozenset()

    def has_label(self, wanted: str) -> bool:
        """Tell whether it has a label: a word, ``key=value``, or a key, whatever its value is."""
        return wanted in self.labels or any(label.startswith(f"{wanted}=") for label in self.labels)


ANY: Final = "any"

Seen = Device | None | Literal["any"]
"""How a device was seen by who wants to change it; None when it was not there, ANY when that does not matter."""


class Registry:
    """Reads and changes the registry. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._script = Script(redis, "registry.lua", package=__package__)

    async def names(self) -> list[str]:
        """Return all devices, ascending."""
        try:
            return sorted(name.decode() for name in await self._redis.zrange(_DEVICES, 0, -1))
        except RedisError as error:
            raise _away(error) from error

    async def get(self, name: str) -> Device | None:
        """Return a device, or None when it is not there."""
        try:
            created = await self._redis.zscore(_DEVICES, name)
            if created is None:
                return None
            fields = await self._redis.hgetall(_device(name))
            is_gateway = fields.get(b"is_gateway") == b"1"
            children = await self._redis.smembers(_children(name)) if is_gateway else set()
        except RedisError as error:
            raise _away(error) from error
        return _read(name, int(created), fields, children)

    async def all(self) -> list[Device]:
        """Return every device, ascending by name."""
        names = await self.names()
        found: list[Device] = []
        try:
            for first in range(0, len(names), _AT_ONCE):
                some = names[first : first + _AT_ONCE]
                async with self._redis.pipeline(transaction=False) as reading:
                    for name in some:
                        reading.zscore(_DEVICES, name)
                        reading.hgetall(_device(name))
                        reading.smembers(_children(name))
                    answers = await reading.execute()
                for name, created, fields, children in zip(some, answers[::3], answers[1::3], answers[2::3], strict=True):
                    if created is not None:
                        found.append(_read(name, int(created), fields, children))
        except RedisError as error:
            raise _away(error) from error
        return found

    async def count(self) -> int:
        """Return how many devices there are."""
        try:
            return int(await self._redis.zcard(_DEVICES))
        except RedisError as error:
            raise _away(error) from error

    async def version(self) -> int:
        """Return a number that grows when what is said of any device changes."""
        try:
            return int(await self._redis.get(_VERSION) or 0)
        except RedisError as error:
            raise _away(error) from error

    async def by_token(self, token: str) -> Device | None:
        """Return the device that a token belongs to, or None."""
        try:
            name = await self._redis.get(_token(hash_of(token)))
        except RedisError as error:
            raise _away(error) from error
        device = None if name is None else await self.get(name.decode())
        return device if device is not None and hash_of(token) in device.tokens else None

    async def note(self, names: Sequence[str]) -> None:
        """Enter devices that are not there."""
        now = now_us()
        try:
            await self._redis.zadd(_DEVICES, dict.fromkeys(names, now), nx=True)
        except RedisError as error:
            raise _away(error) from error

    async def add(self, name: str, *, is_gateway: bool = False, gateway: str = "", type: str | None = None) -> None:
        """Enter a device, or change what is said of one.

        Args:
            name: The device.
            is_gateway: It may speak for its children.
            gateway: It is a child of this one; empty for none.
            type: What kind of device it is; None leaves what was said before.

        Raises:
            BadField: the name or type is none, the gateway is not a gateway, or it is one of others and is to be none.
        """
        await self._check(name, is_gateway, gateway, type)
        said = {"is_gateway": str(int(is_gateway)), "gateway": gateway}
        await self._change(name, said if type is None else said | {"type": type}, ANY)

    async def put(self, device: Device, *, seen: Seen = ANY) -> None:
        """Say all of a device anew that people say of it: whether it is a gateway, its gateway, type and labels.

        Args:
            device: As it is to be; what people do not say of it is left as it is.
            seen: As it has to be for that: a device, None for one that is not there, ANY whatever it is.

        Raises:
            BadField: the name or type is none, the gateway is not a gateway, or it is one of others and is to be none.
            Changed: it is not as it was seen.
        """
        await self._check(device.name, device.is_gateway, device.gateway, device.type)
        await self._change(device.name, _said(device), seen)

    async def _check(self, name: str, is_gateway: bool, gateway: str, type: str | None) -> None:
        rule = "letters, digits and - : . _, the first a letter or digit"
        if type and not is_device_name(type):
            raise BadField("type", f"{type[:80]!r} is no type of a device: {rule}", rule)
        if not is_device_name(name):
            raise BadField("name", f"{name[:80]!r} is no device name: {rule}", rule)
        if gateway == name:
            raise BadField("gateway", f"{name} cannot be its own gateway", "another device, or none")
        if gateway:
            found = await self.get(gateway)
            if found is None or not found.is_gateway:
                hint = f"add it with `isotherm devices add {gateway} --gateway`"
                raise BadField("gateway", f"{gateway[:80]!r} is no gateway: {hint}", "a device that is a gateway")
        if not is_gateway and (before := await self.get(name)) is not None and before.children:
            text = f"{name} is the gateway of {len(before.children)} devices, of {min(before.children)} for one"
            raise BadField(
                "is_gateway", f"{text}: give them another gateway first", "true while a device has it as its gateway"
            )

    async def _change(self, name: str, fields: Mapping[str, str], seen: Seen) -> None:
        match seen:
            case Device():
                await self._write(name, fields, "present", _said(seen) | {"tokens": " ".join(seen.tokens)})
            case None:
                await self._write(name, fields, "absent", {})
            case _:
                await self._write(name, fields, ANY, {})

    async def _revise(
        self, name: str, made: Callable[[Device], Mapping[str, str]], seen: Callable[[Device], Mapping[str, str]]
    ) -> Device:
        """Change some fields of a device by what they were, again while somebody else is faster; returns what it was.

        Args:
            name: The device.
            made: Returns the fields as they are to be.
            seen: Returns them as they are.

        Raises:
            SettingsError: there is no such device.
        """
        while True:
            device = await self._existing(name)
            with suppress(Changed):
                await self._write(name, made(device), "present", seen(device))
                return device

    async def _write(self, name: str, fields: Mapping[str, str], what: str, expected: Mapping[str, str]) -> None:
        flat = [part for pair in (*expected.items(), *fields.items()) for part in pair]
        try:
            done = await self._script([_DEVICES, _device(name), _VERSION], [name, now_us(), what, len(expected), *flat])
        except RedisError as error:
            raise _away(error) from error
        if not done:
            raise Changed(f"{name} was changed meanwhile")

    async def label(self, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> frozenset[str]:
        """Give a device labels and take some from it; returns those that it has then.

        Args:
            name: The device.
            add: Words, and ``key=value``, which takes the place of another value of the key.
            remove: Words, ``key=value``, or a key, whatever its value is.

        Raises:
            SettingsError: there is no such device, one of ``add`` is no label, it has none of ``remove``, or too many.
        """
        add, remove = list(add), list(remove)
        device = await self._revise(
            name, lambda one: _labels(labelled(one, add=add, remove=remove)), lambda one: _labels(one.labels)
        )
        return labelled(device, add=add, remove=remove)

    async def new_token(self, name: str) -> str:
        """Give a device a new token; of its older ones the newest stays valid.

        Raises:
            SettingsError: there is no such device.
        """
        token = secrets.token_urlsafe(TOKEN_BYTES)
        hashed, mosquitto = hash_of(token), mosquitto_hash(token)
        await self._revise(name, lambda one: _tokens([hashed, *one.tokens][:MAX_TOKENS], mosquitto), _tokens_of)
        return token

    async def revoke_tokens(self, name: str, *, but_newest: bool = False) -> int:
        """Make a device's tokens invalid; returns how many.

        Raises:
            SettingsError: there is no such device.
        """
        kept = 1 if but_newest else 0
        device = await self._revise(name, lambda one: _tokens(one.tokens[:kept], one.mosquitto if kept else ""), _tokens_of)
        return len(device.tokens[kept:])

    async def remove(self, name: str, *, seen: Seen = ANY) -> None:
        """Forget a device and its tokens; its history stays until it expires.

        Args:
            name: The device.
            seen: As it has to be for that; see `put`.

        Raises:
            SettingsError: there is no such device.
            Changed: it is not as it was seen.
        """
        if not isinstance(seen, Device):
            await self._existing(name)
        await self._change(name, {}, seen)

    async def _existing(self, name: str) -> Device:
        device = await self.get(name)
        if device is None:
            raise SettingsError(f"there is no device {name!r}; add it with `isotherm devices add {name}`")
        return device


def labelled(device: Device, *, add: Iterable[str], remove: Iterable[str]) -> frozenset[str]:
    """Return the labels of a device after a change; see :meth:`Registry.label`."""
    labels = set(device.labels)
    for one in remove:
        gone = {label for label in labels if label == one or label.startswith(f"{one}=")}
        if not gone:
            had = " ".join(sorted(device.labels)) or "none"
            raise SettingsError(f"{device.name} has no label {one!r}; it has {had}")
        labels -= gone
    for one in add:
        if not is_label(one):
            rule = f"a word or key=value, each 1–{MAX_LABEL_CHARS} of letters, digits and - . _, the first a letter or digit"
            raise BadField("labels", f"{one[:80]!r} is no label: {rule}", rule)
        key, equals, _ = one.partition("=")
        others = {label for label in labels if not (equals and label.startswith(key + equals))}
        labels = others | {one}
    if len(labels) > MAX_LABELS:
        text = f"{device.name} would have {len(labels)} labels, expected at most {MAX_LABELS}"
        raise BadField("labels", text, f"at most {MAX_LABELS}")
    return frozenset(labels)


def hash_of(token: str) -> str:
    """Return what is kept of a token: its SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def mosquitto_hash(password: str) -> str:
    """Return what mosquitto keeps of a password: PBKDF2-HMAC-SHA-512 with a salt (mosquitto_passwd(1), ``$7$``).

    A token has 192 random bits: the few rounds that mosquitto asks for are enough.
    """
    salt = secrets.token_bytes(12)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


_ROUNDS = 101


def _read(name: str, created: int, fields: Mapping[bytes, bytes], children: Iterable[bytes]) -> Device:
    is_gateway = fields.get(b"is_gateway") == b"1"
    return Device(
        name,
        created,
        is_gateway,
        fields.get(b"gateway", b"").decode(),
        fields.get(b"tokens", b"").decode().split(),
        frozenset(child.decode() for child in children) if is_gateway else frozenset(),
        fields.get(b"type", b"").decode(),
        fields.get(b"mosquitto", b"").decode(),
        frozenset(fields.get(b"labels", b"").decode().split()),
    )


def _said(device: Device) -> dict[str, str]:
    """Return what people say of a device, as it is kept."""
    said = {"is_gateway": str(int(device.is_gateway)), "gateway": device.gateway, "type": device.type}
    return said | _labels(device.labels)


def _labels(labels: Iterable[str]) -> dict[str, str]:
    return {"labels": " ".join(sorted(labels))}


def _tokens(hashes: Sequence[str], mosquitto: str) -> dict[str, str]:
    return {"tokens": " ".join(hashes), "mosquitto": mosquitto}


def _tokens_of(device: Device) -> dict[str, str]:
    return _tokens(device.tokens, device.mosquitto)


def _device(name: str) -> str:
    return f"{_PREFIX}device:{name}"


def _children(name: str) -> str:
    return f"{_PREFIX}children:{name}"


def _token(hashed: str) -> str:
    return f"{_PREFIX}token:{hashed}"


def _away(error: RedisError) -> Unavailable:
    return Unavailable(f"the store does not answer: {error}")
