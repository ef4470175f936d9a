"""A rollout: a change of the configuration of many devices, wave after wave.

    state     what is known                                                              what comes next
    --------  -------------------------------------------------------------------------  --------------------------------
    running   devices are given it; when a wave has ended, the next one's are            done, halted
    halted    too many failed, or somebody holds it: nobody is given it any more         running
    watching  every device has ended; it is continuous: those that come are given it     running, halted
    done      every device has ended

    of a device   what is known
    -----------   --------------------------------------------------------------------------------------
    waiting       its wave has not begun
    pending …     as its configuration is: pending, sent, applied, drifted, failed
    superseded    somebody else has changed its configuration since

A wave has ended when all of its devices have, or when its time is over: devices that are away do not hold up the others.
They are given what is desired when they come.

A continuous rollout is for the devices that match its targets later as well; see newcomers.py. It is never done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from isotherm.clock import iso
from isotherm.errors import BadField
from isotherm.limits import DAY, MINUTE, SECOND

State = Literal["running", "halted", "watching", "done"]

Member = Literal["waiting", "pending", "sent", "applied", "drifted", "failed", "superseded"]

MEMBERS: tuple[Member, ...] = get_args(Member)

ENDED: frozenset[Member] = frozenset({"applied", "drifted", "failed", "superseded"})

MAX_DEVICES = 100_000
MAX_WAVES = 20
DEFAULT_FAILURE_RATE = 0.2
DEFAULT_WAVE_TIMEOUT = 10 * MINUTE
MIN_ENDED = 5
"""Of how many devices one must know the end before they are enough to halt a rollout, unless a wave has fewer."""


class Targets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which devices: those that all of it is true of.

    Attributes:
        devices: Names, and patterns of a shell.
        label: A word, a key, or ``key=value``.
        type: Kind of device.
        gateway: The gateway whose children they are.
    """

    devices: Sequence[str] = ()
    label: str = ""
    type: str = ""
    gateway: str = ""

    def __str__(self) -> str:
        parts = [" ".join(self.devices)] * bool(self.devices)
        parts += [f"{name} {getattr(self, name)}" for name in ("label", "type", "gateway") if getattr(self, name)]
        return ", ".join(parts) or "all devices"


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout; times are µs since the epoch UTC.

    Attributes:
        id: Ascending with ``created``.
        targets: Which devices it was for, as they were then; or is for, if it is continuous.
        values: Key → value as JSON; null where the key is to be removed.
        by: Who began it.
        created: When.
        devices: How many they were when it began.
        waves: How many of these are in the first wave, the second, …
        max_failure_rate: A greater share of failures among those that have ended halts it.
        wave_timeout: How long a wave is waited for, µs.
        continuous: It is for devices that match its targets later as well, until it is halted or superseded.
        back: The rollout that it takes back, or empty.
        state: See the table above.
        wave: The wave whose devices are given it, from 0.
        wave_at: When it began.
        why: Why it is halted, or does not go to all devices that match.
    """

    id: str
    targets: Targets
    values: Mapping[str, msgspec.Raw]
    by: str
    created: int
    devices: int
    waves: Sequence[int]
    max_failure_rate: float = DEFAULT_FAILURE_RATE
    wave_timeout: int = DEFAULT_WAVE_TIMEOUT
    continuous: bool = False
    back: str = ""
    state: State = "running"
    wave: int = 0
    wave_at: int = 0
    why: str = ""


class Progress(msgspec.Struct, frozen=True):
    """How many devices of a rollout are how far."""

    waiting: int = 0
    pending: int = 0
    sent: int = 0
    applied: int = 0
    drifted: int = 0
    failed: int = 0
    superseded: int = 0

    @property
    def devices(self) -> int:
        """All of them."""
        return self.waiting + self.open + self.ended

    @property
    def ended(self) -> int:
        """Devices that nothing more will happen to by itself."""
        return self.applied + self.drifted + self.failed + self.superseded

    @property
    def open(self) -> int:
        """Devices that are being given it."""
        return self.pending + self.sent

    def is_failing(self, rate: float) -> bool:
        """Tell whether more than a share of those that have answered could not, when enough have."""
        answered = self.applied + self.drifted + self.failed
        return self.failed > rate * answered and answered >= min(MIN_ENDED, answered + self.open)


def waves_of(count: int, shares: Sequence[float]) -> list[int]:
    """Return how many devices are in each wave.

    Args:
        count: Of all devices.
        shares: Up to which share of them each wave goes, ascending; the last wave has the rest.

    Raises:
        BadField: they are no such shares, or too many.

    >>> waves_of(100, [0.01, 0.1])
    [1, 9, 90]
    >>> waves_of(3, []), waves_of(3, [1e-9])
    ([3], [1, 2])
    """
    ends = [*shares, 1.0]
    if len(ends) > MAX_WAVES or not all(0 < one <= 1 for one in shares) or sorted(set(shares)) != list(shares):
        rule = f"up to {MAX_WAVES - 1} ascending shares, above 0 and at most 1"
        raise BadField("waves", f"waves is {list(shares)[:30]}", rule)
    sizes: list[int] = []
    for end in ends:
        size = min(count, max(1, math.ceil(round(end * count, 6)))) - sum(sizes)
        if size > 0:
            sizes.append(size)
    return sizes


def check_limits(max_failure_rate: float, wave_timeout: int) -> None:
    """See that a rollout's limits can be.

    Raises:
        BadField: one cannot.
    """
    if not 0 <= max_failure_rate <= 1:
        raise BadField("max_failure_rate", f"max_failure_rate is {max_failure_rate:g}", "a share, 0 to 1")
    if not SECOND <= wave_timeout <= 7 * DAY:
        raise BadField("wave_timeout", f"wave_timeout is {wave_timeout / SECOND:g} s", f"1 to {7 * DAY // SECOND:,} s")


def described(one: Rollout, progress: Progress) -> dict[str, Any]:
    """Return what people and programs are told of a rollout: plain values, times as ISO 8601."""
    return {
        "id": one.id,
        "targets": msgspec.to_builtins(one.targets),
        "values": {key: msgspec.json.decode(value) for key, value in one.values.items()},
        "by": one.by,
        "created": iso(one.created),
        "continuous": one.continuous,
        "back": one.back,
        "state": one.state,
        "why": one.why,
        "devices": progress.devices,
        "waves": list(one.waves),
        "wave": one.wave,
        "wave_at": iso(one.wave_at),
        "max_failure_rate": one.max_failure_rate,
        "wave_timeout": one.wave_timeout / SECOND,
        "progress": msgspec.to_builtins(progress),
    }
