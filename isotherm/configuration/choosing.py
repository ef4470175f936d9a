"""Which devices a rollout is for, and what of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from isotherm.configuration.rollout import MAX_DEVICES, Rollout, Targets
from isotherm.errors import BadField
from isotherm.names import is_device_name
from isotherm.registry import Device
from isotherm.rules.targets import matcher


def picker(targets: Targets) -> Callable[[Device], bool]:
    """Return a function that tells whether targets mean a device."""
    names = frozenset(targets.devices)
    patterns = [matcher(pattern) for pattern in targets.devices if not is_device_name(pattern)]

    def is_meant(device: Device) -> bool:
        return (
            (not names or device.name in names or any(pattern(device.name) for pattern in patterns))
            and (not targets.label or device.has_label(targets.label))
            and (not targets.type or device.type == targets.type)
            and (not targets.gateway or device.gateway == targets.gateway)
        )

    return is_meant


def chosen(targets: Targets, devices: Iterable[Device], *, may_come: bool = False) -> list[Device]:
    """Return the devices that targets mean, ascending by name.

    Args:
        targets: Which ones.
        devices: Every device, ascending by name.
        may_come: Those that are not there may come later.

    Raises:
        BadField: there is none, one that was named is not there, or they are too many.
    """
    if not (targets.devices or targets.label or targets.type or targets.gateway):
        raise BadField("targets", "no devices are named", "devices, a label, a type or a gateway; * stands for all")
    every = list(devices)
    if not may_come:
        _check_names(targets, {one.name for one in every})
    is_meant = picker(targets)
    found = [one for one in every if is_meant(one)]
    if not found and not may_come:
        raise BadField("targets", f"there is no device: {targets}", "devices that are there")
    if len(found) > MAX_DEVICES:
        raise BadField("targets", f"{len(found):,} devices", f"at most {MAX_DEVICES:,} in one rollout")
    return found


def shares(rollout: Rollout, newer: Iterable[Rollout], devices: Iterable[Device]) -> dict[frozenset[str], list[Device]]:
    """Return which keys of a rollout are left to which devices by newer ones, which are for some of them as well."""
    ours = frozenset(rollout.values)
    others = [(picker(one.targets), frozenset(one.values)) for one in newer]
    found: dict[frozenset[str], list[Device]] = {}
    for device in devices:
        keys = ours.difference(*(theirs for is_meant, theirs in others if is_meant(device)))
        found.setdefault(keys, []).append(device)
    return found


def replaces(newer: Rollout, older: Rollout) -> bool:
    """Tell whether a rollout has the targets of an older one, and leaves it no key."""

    def without_order(targets: Targets) -> tuple[Targets, frozenset[str]]:
        return msgspec.structs.replace(targets, devices=()), frozenset(targets.devices)

    return newer.values.keys() >= older.values.keys() and without_order(newer.targets) == without_order(older.targets)


def _check_names(targets: Targets, known: set[str]) -> None:
    for pattern in targets.devices:
        if pattern not in known and (is_device_name(pattern) or not any(map(matcher(pattern), known))):
            raise BadField("devices", f"there is no device {pattern!r}", "names of devices, or patterns such as room-*")
