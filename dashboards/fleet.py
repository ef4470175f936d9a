"""The newest value of every series, and what has changed in it since it was last read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isotherm.store.reader import Latest


@dataclass(frozen=True, slots=True)
class News:
    """What a reading of the fleet brought.

    Attributes:
        changed: The series with a new value, by their place in ``Fleet.latest``.
        anew: True when series or units came or went, so that places are other ones than before.
    """

    changed: list[int]
    anew: bool


class Fleet:
    """The newest value of every series, ascending by device and metric.

    Attributes:
        latest: The values.
        known: They were read.
        names: The devices, each once; the same object as long as there are the same series.
    """

    def __init__(self) -> None:
        self.latest: list[Latest] = []
        self.known = False
        self.names: Sequence[str] = ()
        self._devices: dict[str, list[Latest]] = {}

    def device(self, name: str) -> list[Latest]:
        """Return the newest value of each metric of a device; none when there is no such device."""
        return self._devices.get(name, [])

    def update(self, latest: list[Latest]) -> News:
        """Replace what is known by a later reading of the store."""
        before, self.latest = self.latest, latest
        anew = not self.known or not _same_series(before, latest)
        self.known = True
        changed = [place for place, (old, new) in enumerate(zip(before, latest, strict=False)) if old != new]
        if anew or changed:
            self._devices = {}
            for one in latest:
                self._devices.setdefault(one.device, []).append(one)
        if anew:
            self.names = tuple(self._devices)
        return News(changed, anew)


def _same_series(before: list[Latest], after: list[Latest]) -> bool:
    return len(before) == len(after) and all(map(_same, before, after))


def _same(one: Latest, other: Latest) -> bool:
    return (one.device, one.metric, one.unit) == (other.device, other.metric, other.unit)
