"""What a connector remembers of the series it has seen: their numbers, devices, partitions and units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isotherm.errors import InvalidReading
from isotherm.limits import HOUR, MAX_DEVICE_METRICS
from isotherm.names import series_name
from isotherm.topics import partition_of

MAX_UNIT_CHARS = 32

ANNOUNCE_UNITS_US = HOUR
"""How often the units of all series are sent again, for a store that has lost them."""

Key = str | tuple[str, str]
"""A name that says its device, or (device of the channel, name)."""


class SeriesTable:
    """Name → number of its series. A good new name is entered when it is first looked up."""

    def __init__(self, partitions: int) -> None:
        self.names: list[str] = []
        self._codes = _Codes(self._enter)
        self._may_enter: Callable[[str], bool] | None = None  # of who asks now
        self._by_name: dict[str, int] = {}
        self._by_device: dict[str, int] = {}
        self._devices: list[str] = []
        self._metrics: list[int] = []  # of each device
        self._new: list[str] = []
        self._count = partitions
        self._partition = np.empty(1024, dtype=np.int64)
        self._device = np.empty(1024, dtype=np.int64)
        self._announced = np.zeros(1024, dtype=np.bool_)  # by device

    def __len__(self) -> int:
        return len(self._codes)

    def codes(
        self, names: Sequence[str], device: str | None, may_name: Callable[[str], bool] | None = None
    ) -> NDArray[np.int64]:
        """Return the numbers of the series that names stand for, or -1, shape (n,).

        Args:
            names: SenML names.
            device: The device that bare names belong to, if any.
            may_name: Tells for which devices who asks may enter new names; for all of them by default.
        """
        self._may_enter = may_name
        keys: Sequence[Key] = names if device is None else [(device, name) for name in names]
        return np.fromiter(map(self._codes.__getitem__, keys), dtype=np.int64, count=len(keys))

    def code(self, name: str, device: str | None) -> int:
        """Return the number of one series, or -1."""
        return self._codes[name if device is None else (device, name)]

    def partitions(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partitions of series, shape (n,)."""
        return self._partition[codes]

    def belong(self, codes: NDArray[np.int64], may_name: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Tell which series are of a device that a peer may name, shape (n,); False where there is no series."""
        distinct, which = np.unique(np.where(codes < 0, -1, self._device[codes]), return_inverse=True)
        allowed = [device >= 0 and may_name(self._devices[device]) for device in distinct.tolist()]
        return np.array(allowed, dtype=np.bool_)[which]

    def new_devices(self) -> list[str]:
        """Return the devices of which readings were first accepted since the last call."""
        new, self._new = self._new, []
        return new

    def announce(self, codes: NDArray[np.int64]) -> None:
        """Readings of these series, shape (n,), were accepted."""
        devices = self._device[codes]
        for device in np.unique(devices[~self._announced[devices]]).tolist():
            self._announced[device] = True
            self._new.append(self._devices[device])

    def _enter(self, key: Key) -> int:
        try:
            name = series_name(key) if isinstance(key, str) else series_name(key[1], device=key[0])
        except InvalidReading:
            return -1
        if self._may_enter is not None and not self._may_enter(name.partition("/")[0]):
            return -1  # a device has only so many metrics: nobody else may use them up
        code = self._by_name.get(name)
        return self._add(name) if code is None else code

    def _add(self, name: str) -> int:
        device = name.partition("/")[0]
        number = self._by_device.get(device)
        if number is None:
            number = self._by_device[device] = len(self._devices)
            self._devices.append(device)
            self._metrics.append(0)
        if self._metrics[number] >= MAX_DEVICE_METRICS:
            return -1
        self._metrics[number] += 1
        code = self._by_name[name] = len(self.names)
        self.names.append(name)
        if code == len(self._partition):
            self._partition = np.concatenate([self._partition, np.empty_like(self._partition)])
            self._device = np.concatenate([self._device, np.empty_like(self._device)])
            self._announced = np.concatenate([self._announced, np.zeros_like(self._announced)])
        self._device[code] = number
        self._partition[code] = partition_of(device, self._count)
        return code


class _Codes(dict[Key, int]):
    """Remembers the numbers of names; bad names are not remembered: a peer could send any number of them, of any length."""

    def __init__(self, enter: Callable[[Key], int]) -> None:
        super().__init__()
        self._enter = enter

    def __missing__(self, key: Key) -> int:
        code = self._enter(key)
        if code >= 0:
            self[key] = code
        return code


class Units:
    """Which units still have to be told to the store: those of new series, changed ones, and all of them every hour."""

    def __init__(self) -> None:
        self._known: defaultdict[str | None, dict[str, str]] = defaultdict(dict)  # device of the channel → name → unit
        self._news: dict[int, str] = {}
        self._since = 0

    def changed(self, units: Mapping[str, str], device: str | None, now: int) -> list[tuple[str, str]]:
        """Return the names whose unit is new or another than the last time, each with as much of it as is told."""
        if now - self._since > ANNOUNCE_UNITS_US:
            self._known.clear()
            self._since = now
        known = self._known[device]
        short = ((name, unit[:MAX_UNIT_CHARS]) for name, unit in units.items())
        return [(name, unit) for name, unit in short if known.get(name) != unit]

    def note(self, name: str, device: str | None, code: int, unit: str) -> None:
        """Series ``code`` has a unit that has to be told."""
        self._known[device][name] = unit
        self._news[code] = unit

    def news(self, codes: Sequence[int]) -> dict[int, str]:
        """Return series → unit of those whose unit is new or has changed, once after each change."""
        return {code: self._news.pop(code) for code in codes if code in self._news}
