"""What the API's answers hold. Fields that a newer platform adds are passed over.

Times are `datetime` in UTC. Readings, rows and events, of which there are many, have µs since the epoch; spans are µs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from isotherm.events import Severity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """Some items of a list, and where the next ones begin: None on the last page."""

    items: list[Item]
    next: str | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device.

    Attributes:
        name: What it is known by.
        created: When it was first seen or added.
        type: What kind of device it is.
        is_gateway: Whether it may speak for its children.
        gateway: The gateway that speaks for it, or empty.
        labels: Words, and ``key=value``.
        tokens: How many tokens of it are valid.
        etag: By which it can be changed as it was seen; empty in a list.
    """

    name: str
    created: datetime
    type: str = ""
    is_gateway: bool = False
    gateway: str = ""
    labels: frozenset[str] = frozenset()
    tokens: int = 0
    etag: str = ""


Status = Literal["online", "late", "offline"]


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a device is there.

    Attributes:
        device: Which.
        status: ``late`` is one that has not been heard of for longer than it uses to be.
        seen: When it was last heard of.
        cadence: How far apart its arrivals use to be, µs; 0 when it has been heard of only once.
    """

    device: str
    status: Status
    seen: datetime
    cadence: int


class Attribute(msgspec.Struct, frozen=True):
    """A text that a device has reported."""

    name: str
    value: str
    time: datetime


class Attributes(msgspec.Struct, frozen=True):
    """The texts that a device has reported, ascending by name."""

    reported: list[Attribute]


CommandState = Literal["queued", "sent", "delivered", "answered", "expired", "failed"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a device was asked to do. Its state is never ahead of what has happened; a late reply is taken as well.

    Attributes:
        id: Ascending with ``created``.
        device, name, parameters: Who is to do what, with what.
        idempotent: Whether it does no harm to do it twice.
        by: Who has asked for it.
        created, deadline: When, and by when the answer has to be there.
        state: How far it is.
        attempts: How often a connector has taken it up.
        sent, delivered, ended: When it was first so; None while it was not.
        via: The connector that took it up last.
        result: What the device has answered.
        error: Why it failed.
    """

    id: str
    device: str
    name: str
    parameters: Any
    idempotent: bool
    by: str
    created: datetime
    deadline: datetime
    state: CommandState
    attempts: int
    sent: datetime | None
    delivered: datetime | None
    ended: datetime | None
    via: str
    result: Any
    error: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it, but for a late reply."""
        return self.state in ("answered", "expired", "failed")


ConfigurationState = Literal["none", "pending", "sent", "applied", "drifted", "failed"]


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What a device should have, and what it has.

    Attributes:
        device: Whose.
        version: Grows with each change of ``desired``; 0 while nothing is desired.
        state: How far it is.
        desired: Setting → value.
        changed, by: When and by whom ``desired`` was last changed; None while it was not.
        rollout: The rollout that did, or empty.
        attempts: How often it was given to the device.
        given, via: When it was last, and by which connector.
        progress: How far the device is with it, %, if it has said so.
        error: Why the device cannot.
        reported, reported_version, reported_at: Setting → value as the device has said, of which version, and when.
        drift: Settings of which the device has reported another value than the desired one.
        etag: By which it can be changed as it was seen; empty in a list.
    """

    device: str
    version: int
    state: ConfigurationState
    desired: dict[str, Any]
    changed: datetime | None
    by: str
    rollout: str
    attempts: int
    given: datetime | None
    via: str
    progress: int | None
    error: str
    reported: dict[str, Any]
    reported_version: int
    reported_at: datetime | None
    drift: list[str]
    etag: str = ""


RolloutState = Literal["waiting", "pending", "sent", "applied", "drifted", "failed", "superseded"]
"""How far a device of a rollout is; ``superseded`` is one whose configuration somebody else has changed since."""


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices: those that all of it is true of.

    Attributes:
        devices: Names, and patterns of a shell.
        label: A word, a key, or ``key=value``.
        type: Of this type.
        gateway: The gateway whose children they are.
    """

    devices: list[str] = []
    label: str = ""
    type: str = ""
    gateway: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices of a rollout are how far."""

    waiting: int
    pending: int
    sent: int
    applied: int
    drifted: int
    failed: int
    superseded: int


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A change for many devices, wave after wave, and how far it is.

    Attributes:
        id: Ascending with ``created``.
        targets: Which devices it was for, as they were then; or is for, if it is continuous.
        values: Setting → value; None removes it. ``firmware`` is what devices are told of an image.
        by, created: Who began it, and when.
        continuous: Devices that match later are given it as well.
        back: The rollout that it takes back, or empty.
        state: ``running``; ``halted``, when nobody is given it any more; ``done``, when every device has ended, or
            ``watching``, when it is continuous.
        why: Why it is halted, or does not go to all devices that match.
        devices: How many it has been for so far.
        waves: How many of those that were there when it began are in each wave.
        wave, wave_at: The wave whose devices are given it, from 0, and when it began.
        max_failure_rate: A greater share of failures among the answers halts it.
        wave_timeout: How long a wave is waited for, s.
        progress: How many devices are how far.
    """

    id: str
    targets: Targets
    values: dict[str, Any]
    by: str
    created: datetime
    continuous: bool = False
    back: str
    state: Literal["running", "halted", "watching", "done"]
    why: str
    devices: int
    waves: list[int]
    wave: int
    wave_at: datetime
    max_failure_rate: float
    wave_timeout: float
    progress: Progress


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of firmware; it is never changed.

    Attributes:
        name, version: What it is.
        size: Bytes.
        sha256: Of its bytes, hexadecimal.
        signature: Ed25519, in Base64.
        key: Id of the key that it is signed with.
        created, by: When it was uploaded, and by whom.
    """

    name: str
    version: str
    size: int
    sha256: str
    signature: str
    key: str
    created: datetime
    by: str


class Key(msgspec.Struct, frozen=True):
    """A public key whose images are taken: the 32 bytes of an Ed25519 key, in Base64."""

    id: str
    public: str


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual host.

    Attributes:
        name: What it is called.
        user: Whose it is.
        state: How it is: ``running`` when its sshd answers; ``kept`` when only its volume is there.
        detail: Why it is so, or what does not hold of it.
        address: Its own; empty while it has none.
        ssh: The command that enters it.
        cpus: How many processors it may use at most.
        memory, disk: As Kubernetes writes it: ``2Gi``.
        image: What it was made from.
        created: When, or None where that is not known.
    """

    name: str
    user: str
    state: str
    detail: str
    address: str
    ssh: str
    cpus: float
    memory: str
    disk: str
    image: str
    created: datetime | None


class HostKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The OpenSSH public keys that let into a virtual host.

    Attributes:
        keys: A line each.
        etag: By which they can be changed as they were seen.
    """

    keys: list[str]
    etag: str = ""


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """What was refused. All of its texts are a stranger's.

    Attributes:
        id: ``PARTITION/OFFSET``.
        reason, detail: Why; `isotherm.rejects` has the table of reasons.
        protocol, peer: How it came.
        device: Whose it is, as far as that is known.
        received: When.
        size: Bytes of the original.
        is_whole: Whether all of them are kept.
        count: Inputs in it.
        format: As what it was read.
        is_replayed: Whether it was taken in after all.
        text, base64: The bytes, in one of these; None in a list.
    """

    id: str
    reason: str
    detail: str
    protocol: str
    peer: str
    device: str | None
    received: datetime
    size: int
    is_whole: bool
    count: int
    format: str
    is_replayed: bool
    text: str | None = None
    base64: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of a reject that was replayed: what was refused again is a new reject each."""

    accepted: int
    rejected: int
    errors: list[str]


Role = Literal["viewer", "operator", "admin"]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user.

    Attributes:
        name: What they log in as.
        role: What they may do.
        created: When they came.
        last_log_in: When they logged in last, or None.
        is_disabled: Whether they are kept out.
        must_change_password: Whether the password was given to them.
        has_single_sign_on: Whether the identity provider keeps password and role.
        etag: By which they can be changed as they were seen; empty in a list.
    """

    name: str
    role: Role
    created: datetime
    last_log_in: datetime | None
    is_disabled: bool
    must_change_password: bool
    has_single_sign_on: bool
    etag: str = ""


class Token(msgspec.Struct, frozen=True):
    """An API token.

    Attributes:
        id: By which it is revoked.
        name: What it is for.
        scopes: What it may be used for.
        created, expires: When.
        token: What a program shows, of one that was made just now; else empty.
    """

    id: str
    name: str
    scopes: frozenset[str]
    created: datetime
    expires: datetime
    token: str = ""


class Latest(msgspec.Struct, frozen=True):
    """The newest value of a series.

    Attributes:
        series: ``device/metric``.
        device, metric: The same, apart.
        value: None when it is not finite.
        unit: RFC 8428 §12.1, or empty.
        time: The device's.
        received_at: The platform's.
    """

    series: str
    device: str
    metric: str
    value: float | None
    unit: str
    time: datetime
    received_at: datetime


class Reading(NamedTuple):
    """A sample as it came: its series, the device's time in µs since the epoch, and its value."""

    series: str
    time: int
    value: float

    @property
    def at(self) -> datetime:
        """Its time, UTC."""
        return moment(self.time)


class Row(msgspec.Struct, frozen=True):
    """What was measured in ``width`` µs from ``time``, µs since the epoch; a width of 0 is a single reading.

    Values are None where they are infinite.
    """

    time: int
    width: int
    count: int
    mean: float | None
    min: float | None
    max: float | None
    last: float | None

    @property
    def at(self) -> datetime:
        """Its begin, UTC."""
        return moment(self.time)


class Rows(msgspec.Struct, frozen=True):
    """Rows of a series in columns of one length, ascending by time; iterate over them as `Row`."""

    unit: str
    time: list[int]
    width: list[int]
    count: list[int]
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    last: list[float | None]

    def __len__(self) -> int:
        return len(self.time)

    def __iter__(self) -> Iterator[Row]:
        return map(Row, self.time, self.width, self.count, self.mean, self.min, self.max, self.last)

    def numpy(self) -> dict[str, NDArray[Any]]:
        """Return the columns as arrays, shape (n,): time datetime64[us], width and count int64, others float64 with NaN."""
        import numpy as np

        kinds: dict[str, type[np.generic] | str] = {"time": "datetime64[us]", "width": np.int64, "count": np.int64}
        return {name: np.array(getattr(self, name), dtype=kinds.get(name, np.float64)) for name in Row.__struct_fields__}


class Series(msgspec.Struct, frozen=True):
    """Series over a range of time."""

    series: dict[str, Rows]


class Mark(msgspec.Struct, frozen=True):
    """Who has seen an alarm, or shelved it, when, and until when."""

    by: str
    time: datetime
    note: str = ""
    until: datetime | None = None


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm.

    Attributes:
        key: ``rule/device`` or ``rule/device/metric``.
        rule, device, metric, severity, message: What is wrong, where, and how bad that is.
        value, unit: Of the reading that it came from, where there is one.
        since: When it was raised, µs since the epoch; with ``key`` it names this occurrence.
        raised, cleared: The same, and when it was over; None while it is not.
        times: How often it was raised in this occurrence.
        acknowledged, shelved: By whom.
    """

    key: str
    rule: str
    device: str
    metric: str
    severity: str
    message: str
    value: float | None
    unit: str
    since: int
    raised: datetime
    cleared: datetime | None
    times: int
    acknowledged: Mark | None = None
    shelved: Mark | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule: when an alarm is raised. See `isotherm.rules.Rule` for each field; spans of time are µs.

    Attributes:
        etag: By which it can be changed as it was seen; empty in a list, and of a new one.
    """

    id: str
    kind: Literal["threshold", "rate", "silence", "expression"]
    name: str = ""
    metric: str = ""
    devices: str = "*"
    label: str = ""
    type: str = ""
    severity: Severity = "warning"
    above: float | None = None
    below: float | None = None
    clear_above: float | None = None
    clear_below: float | None = None
    hysteresis: float | None = None
    window: int = 0
    per: Literal["second", "minute", "hour"] | None = None
    silence: int = 0
    expression: str = ""
    hold: int = 0
    clear_after: int = 0
    message: str = ""
    enabled: bool = True
    etag: str = ""


class Line(msgspec.Struct, frozen=True):
    """Readings: received = accepted + rejected, and accepted = stored + duplicates + in_flight + lost."""

    received: int
    accepted: int
    rejected: int
    stored: int
    duplicates: int
    in_flight: int
    lost: int
    skewed: int
    reasons: dict[str, int]


class Ledger(msgspec.Struct, frozen=True):
    """The ledger, of each connector and in all."""

    connectors: dict[str, Line]
    total: Line


class Analytic(msgspec.Struct, frozen=True):
    """How one process of an analytic is doing; lag in readings' packs."""

    name: str
    instance: str
    state: str
    topic: str
    partitions: list[int]
    lag: int
    packs_per_second: float
    readings_per_second: float
    us_per_reading: float
    errors: int
    problem: str


def moment(time: int) -> datetime:
    """Return a time, µs since the epoch, as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=time)
