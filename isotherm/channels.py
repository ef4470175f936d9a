"""Channels: where people hear of events, which ones, and when not. The registry keeps them.

    | key                               | type   | content                                  |
    |-----------------------------------|--------|------------------------------------------|
    | ``iso:{registry}:channels``       | hash   | name → the channel, JSON                 |
    | ``iso:{registry}:channels:version``| string | how often a channel was put or removed  |

A channel holds secrets in clear (an address of a webhook, a password), for they have to be shown to the far end: whoever
reads the store reads them. They are in no text that this module makes: see `Channel.shown`, `Channel.scrub`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from isotherm.errors import SettingsError
from isotherm.events import SEVERITIES, Severity
from isotherm.names import is_device_name
from isotherm.settings import is_loopback
from isotherm.store.client import Client
from isotherm.store.reader import answering

_CHANNELS = "iso:{registry}:channels"
VERSION = _CHANNELS + ":version"

LEAST_SECRET_CHARS = 4
"""Parts of an address that are shorter are not taken for a secret when a text is cleared of them."""

MAX_ERROR_CHARS = 500

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_APPRISE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_MAIL = re.compile(r"[^@\s<>,;\x00-\x1f\x7f]+@[^@\s<>,;\x00-\x1f\x7f]+")
_KIND = re.compile(r"[A-Za-z0-9*?\[\]._-]+")
_SMTP_PORTS: Mapping[str, int] = {"tls": 465, "starttls": 587, "plain": 25}
_SMTP_SCHEMES: Mapping[str, Literal["tls", "starttls", "plain"]] = {
    "smtps": "tls",
    "smtp": "starttls",
    "smtp+plain": "plain",
}


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What cannot be printed by accident: it may hold secrets."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Webhook(_Model, tag="webhook", tag_field="kind", frozen=True):
    """An HTTP address that takes a POST of JSON.

    Attributes:
        url: ``https://…`` or ``http://…``.
        secret: With it each request is signed (HMAC-SHA256); empty for none.
    """

    url: str
    secret: str = ""

    def __post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            # A malformed address may hold a secret: it is not repeated.
            raise ValueError("to.url of a webhook is something else, expected https://HOST/… or http://HOST/…")

    @property
    def shown(self) -> str:
        """The address without what may be a secret: of many services the path is one."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"

    def secrets(self) -> Iterator[str]:
        """Yield what no text may hold."""
        parts = urlsplit(self.url)
        yield self.secret
        yield from (self.url, parts.path, parts.query, parts.username or "", parts.password or "")
        yield from parts.path.split("/")
        yield from re.split("[&=]", parts.query)


class Email(_Model, tag="email", tag_field="kind", frozen=True):
    """Addresses that get mail, and the server that takes it.

    Attributes:
        to: Who gets it.
        sender: Who it is from; by default the user name if that is an address, or else the first of ``to``.
        host, port: Of the SMTP server.
        security: ``tls`` from the first byte, ``starttls`` demanded, or ``plain``, to this machine only.
        username, password: For its login; empty for none.
    """

    to: tuple[str, ...]
    host: str
    port: int
    security: Literal["tls", "starttls", "plain"] = "starttls"
    sender: str = ""
    username: str = ""
    password: str = ""

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("to.to of an e-mail is empty, expected at least one address")
        for name, address in [("to", one) for one in self.to] + [("sender", self.sender)] * bool(self.sender):
            if not _MAIL.fullmatch(address):
                raise ValueError(f"to.{name} of an e-mail is {address!r}, expected an address such as ops@example.org")
        if not self.host:
            raise ValueError("to.host of an e-mail is empty, expected the name of an SMTP server")
        _within("to.port of an e-mail", self.port, 1, 65535)
        if self.security == "plain" and not is_loopback(self.host):
            raise ValueError(
                f"to.security of an e-mail is 'plain' and to.host {self.host!r}: without TLS mail goes to this machine "
                "only; use smtp:// (STARTTLS) or smtps://"
            )

    @classmethod
    def through(cls, url: str, *, to: tuple[str, ...], sender: str = "") -> Email:
        """Make one from a server's URL: ``smtps://USER:PASSWORD@HOST:465``, ``smtp://…:587`` or ``smtp+plain://localhost:25``.

        Raises:
            ValueError: it is none.
        """
        parts = _split(url)
        security = _SMTP_SCHEMES.get(parts.scheme) if parts else None
        if parts is None or security is None or not parts.hostname:
            raise ValueError(
                "the SMTP server is something else, expected smtp://USER:PASSWORD@HOST:587 (STARTTLS), smtps://…:465 (TLS) "
                "or smtp+plain://localhost:25"
            )
        return cls(
            to=to,
            sender=sender,
            host=parts.hostname,
            port=parts.port or _SMTP_PORTS[security],
            security=security,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
        )

    @property
    def origin(self) -> str:
        """Who the mail is from."""
        return self.sender or (self.username if _MAIL.fullmatch(self.username) else self.to[0])

    @property
    def shown(self) -> str:
        """Who gets it, and through which server."""
        return f"{', '.join(self.to)} via {self.host}:{self.port}"

    def secrets(self) -> Iterator[str]:
        """Yield what no text may hold."""
        yield self.password


class Apprise(_Model, tag="apprise", tag_field="kind", frozen=True):
    """Anything that the library apprise has an address for, see https://appriseit.com.

    Attributes:
        url: Such as ``tgram://TOKEN/CHAT``.
    """

    url: str

    def __post_init__(self) -> None:
        if not _APPRISE.fullmatch(self.url):
            raise ValueError("to.url for apprise is something else, expected an address such as tgram://TOKEN/CHAT")

    @property
    def shown(self) -> str:
        """The service alone: all the rest of such an address may be a secret."""
        return f"{self.url.partition('://')[0]}://…"

    def secrets(self) -> Iterator[str]:
        """Yield what no text may hold."""
        rest = self.url.partition("://")[2]
        yield self.url
        yield rest
        yield from re.split("[/:@?&=]", rest)


class Quiet(_Model, frozen=True):
    """Hours in which nobody wants to hear of anything but the worst.

    Attributes:
        start, end: By the wall clock of the channel's zone, ``22:00`` and ``07:00``.
        through: What is so bad, or worse, is told all the same.
    """

    start: str
    end: str
    through: Severity = "critical"

    def __post_init__(self) -> None:
        for name, text in (("start", self.start), ("end", self.end)):
            if not _TIME.fullmatch(text):
                raise ValueError(f"quiet.{name} is {text!r}, expected a time such as 22:00")
        if self.start == self.end:
            raise ValueError(f"quiet.end is {self.end!r}, as quiet.start; expected another time")

    @classmethod
    def of(cls, text: str, through: Severity) -> Quiet:
        """Make them from ``22:00-07:00``.

        Raises:
            ValueError: it is none.
        """
        start, dash, end = text.partition("-")
        if not dash:
            raise ValueError(f"quiet hours are {text!r}, expected such as 22:00-07:00")
        return cls(start=start.strip(), end=end.strip(), through=through)


class Channel(_Model, frozen=True):
    """Where somebody hears of events.

    Attributes:
        id: Its name.
        to: The far end.
        severity: What is less bad is not told.
        devices: Shell pattern of device names: ``room-*``.
        rules: Ids of rules, as shell patterns; an event of an alarm must match one. None for all.
        kinds: Kinds of events, as shell patterns: ``alarm.raised``, ``presence.*``.
        zone: IANA name of the time zone of its quiet hours and of the times in its messages.
        quiet: Its quiet hours.
        window: How long messages after a first one are gathered, s.
        digest_above: More messages than this that were gathered leave as one.
        per_hour: Messages that leave within an hour; what is beyond is gathered.
    """

    id: str
    to: Webhook | Email | Apprise
    severity: Severity = "warning"
    devices: str = "*"
    rules: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("alarm.raised", "alarm.cleared")
    zone: str = "UTC"
    quiet: Quiet | None = None
    window: int = 30
    digest_above: int = 5
    per_hour: int = 60

    def __post_init__(self) -> None:
        if not is_device_name(self.id):
            raise ValueError(f"id is {self.id!r}, expected letters, digits and - : . _, the first a letter or digit")
        if not self.devices:
            raise ValueError("devices is '', expected a pattern such as room-* or *")
        if not self.kinds:
            raise ValueError("kinds is empty, expected at least one such as alarm.raised")
        for kind in self.kinds:
            if not _KIND.fullmatch(kind):
                raise ValueError(f"kinds has {kind!r}, expected kinds of events such as alarm.raised or presence.*")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"zone is {self.zone!r}, expected an IANA time zone such as Europe/Berlin") from error
        _within("window", self.window, 0, 3600)
        _within("digest_above", self.digest_above, 1, 1000)
        _within("per_hour", self.per_hour, 1, 3600)

    @property
    def rank(self) -> int:
        """Place of the least bad severity that is told, 0 is the worst."""
        return SEVERITIES.index(self.severity)

    def shown(self) -> dict[str, Any]:
        """Return it as plain values, without its secrets."""
        return {
            "name": self.id,
            "kind": self.to.__struct_config__.tag,
            "to": self.to.shown,
            "severity": self.severity,
            "devices": self.devices,
            "rules": list(self.rules),
            "kinds": list(self.kinds),
            "zone": self.zone,
            "quiet": msgspec.to_builtins(self.quiet),
            "window": self.window,
            "digest_above": self.digest_above,
            "per_hour": self.per_hour,
        }

    def scrub(self, text: str) -> str:
        """Return a text of a library or of the far end without this channel's secrets."""
        hidden = {form for one in self.to.secrets() for form in (one, unquote(one)) if len(form) >= LEAST_SECRET_CHARS}
        for one in sorted(hidden, key=len, reverse=True):  # as a word: a short one may be part of any other
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z0-9])", "…", text)
        return text

    def told(self, said: object) -> str:
        """Return what its far end or an error said as it may be shown: short, on one line, without secrets."""
        text = self.scrub(" ".join(str(said).split()))
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
        return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"

    def to_json(self) -> bytes:
        """Encode for the registry."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, name: str, data: bytes) -> Channel:
        """Decode.

        Raises:
            SettingsError: it is none.
        """
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise SettingsError(
                f"channel {name!r} cannot be read: {error}; add it anew with `isotherm notify add {name}`, or remove it "
                f"with `isotherm notify remove {name}`"
            ) from error


class Channels:
    """Reads and changes the channels. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def version(self) -> int:
        """Return a number that grows when a channel is put or removed."""
        with answering():
            return int(await self._redis.get(VERSION) or 0)

    async def all(self) -> list[Channel]:
        """Return every channel, ascending by name.

        Raises:
            SettingsError: one cannot be read.
        """
        with answering():
            rows = await self._redis.hgetall(_CHANNELS)
        return [Channel.from_json(name.decode(), rows[name]) for name in sorted(rows)]

    async def get(self, name: str) -> Channel:
        """Return a channel.

        Raises:
            SettingsError: there is none of this name, or it cannot be read.
        """
        with answering():
            row = await self._redis.hget(_CHANNELS, name)
        if row is None:
            raise SettingsError(f"there is no channel {name!r}; see: isotherm notify list")
        return Channel.from_json(name, row)

    async def put(self, channel: Channel) -> None:
        """Enter a channel, in the place of one of the same name."""
        with answering():
            async with self._redis.pipeline(transaction=True) as change:
                change.hset(_CHANNELS, mapping={channel.id: channel.to_json()})
                change.incr(VERSION)
                await change.execute()

    async def remove(self, name: str) -> None:
        """Forget a channel; what it has not told yet is told no more.

        Raises:
            SettingsError: there is none of this name.
        """
        with answering():
            async with self._redis.pipeline(transaction=True) as change:
                change.hdel(_CHANNELS, name)
                change.incr(VERSION)
                removed, _ = await change.execute()
        if not removed:
            raise SettingsError(f"there is no channel {name!r}; see: isotherm notify list")


def _within(name: str, value: int, least: int, greatest: int) -> None:
    if not least <= value <= greatest:
        raise ValueError(f"{name} is {value}, expected {least} to {greatest}")


def _split(url: str) -> SplitResult | None:
    """Take an address apart; None when it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if re.search(r"[\s\x00-\x1f]", url) else parts
