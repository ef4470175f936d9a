"""Rollouts: changes of the configuration, or the firmware, of many devices, wave after wave."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from isotherm.client.exchange import Listing, Steps, decoded, got, posted, segment
from isotherm.client.model import Configuration, Rollout, RolloutState

PAGE = 20


def rollouts() -> Listing[Rollout]:
    """Go through the rollouts of the last 90 days, newest first."""
    return Listing("/rollouts", Rollout, size=PAGE)


def rollout(id: str) -> Steps[Rollout]:
    """Return a rollout and how far it is.

    Raises:
        NotFound: there is none, or it is forgotten.
    """
    return decoded((yield got(_path(id))).body, Rollout)


def rollout_devices(id: str, state: RolloutState = "failed") -> Listing[Configuration]:
    """Go through the devices of a rollout that are so far, ascending by name."""
    return Listing(_path(id) + "/devices", Configuration, state=state)


def begin_rollout(
    values: Mapping[str, Any] | None = None,
    *,
    firmware: str = "",
    devices: Iterable[str] = (),
    label: str = "",
    type: str = "",
    gateway: str = "",
    waves: Iterable[float] = (),
    continuous: bool = False,
    max_failure_rate: float | None = None,
    wave_timeout: int | None = None,
) -> Steps[Rollout]:
    """Begin to change what devices should have: those that all of it is true of.

    Args:
        values: Setting → value; None removes it. Or else
        firmware: An image, ``NAME/VERSION``.
        devices: Names, and patterns of a shell: ``room-*``; ``*`` is all.
        label: A word, a key, or ``key=value``.
        type: Of this type.
        gateway: For which this gateway speaks.
        waves: Up to which share of the devices each wave goes: 0.01, 0.1 is 1 %, then 9 %, then the rest.
        continuous: Devices that match later are given it as well, until it is halted or a newer one supersedes it.
        max_failure_rate: A greater share of failures among the answers halts it; the platform's default is 0.2.
        wave_timeout: Seconds after which devices that are away no longer hold up the next wave; by default 600.

    Raises:
        Invalid: a field is wrong, or there is no such device.
    """
    targets = {"devices": list(devices), "label": label, "type": type, "gateway": gateway}
    form: dict[str, Any] = {"targets": targets, "values": dict(values or {}), "waves": list(waves)}
    form |= {"continuous": True} if continuous else {}
    options = {"firmware": firmware or None, "max_failure_rate": max_failure_rate, "wave_timeout": wave_timeout}
    form |= {name: value for name, value in options.items() if value is not None}
    return decoded((yield posted("/rollouts", form, uuid.uuid4().hex)).body, Rollout)


def halt_rollout(id: str) -> Steps[Rollout]:
    """Give it to nobody more; who has it keeps it.

    Raises:
        NotFound: there is none, or it is forgotten.
    """
    return (yield from _act(id, "halt"))


def resume_rollout(id: str) -> Steps[Rollout]:
    """Have a rollout that is halted go on.

    Raises:
        NotFound: there is none, or it is forgotten.
    """
    return (yield from _act(id, "resume"))


def retry_rollout(id: str) -> Steps[Rollout]:
    """Give it again to the devices that could not, or have something else.

    Raises:
        NotFound: there is none, or it is forgotten.
    """
    return (yield from _act(id, "retry"))


def roll_back(id: str) -> Steps[Rollout]:
    """Begin to make desired what was so before a rollout, where nobody has changed it since; returns that rollout.

    Raises:
        NotFound: there is none, or it is forgotten.
        Conflict: it has changed nothing; it is halted.
    """
    return decoded((yield posted(_path(id) + "/rollback", None, uuid.uuid4().hex)).body, Rollout)


def _act(id: str, action: str) -> Steps[Rollout]:
    return decoded((yield posted(_path(id) + "/actions", {"action": action}, uuid.uuid4().hex)).body, Rollout)


def _path(id: str) -> str:
    return f"/rollouts/{segment(id)}"
