"""What the engine of a partition is told of the world: the rules, and the devices of the partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from isotherm.registry import Device
from isotherm.rules import Rule
from isotherm.topics import partition_of


@dataclass(frozen=True, slots=True)
class Directory:
    """Rules and devices.

    Attributes:
        rules: All of them, also those that are not enabled.
        devices: The registered devices of the partition by name. A device that is not among them has no type and no labels,
            and nobody minds its silence.
        units: Series → unit, where it is known; packs bring news of them.
    """

    rules: Sequence[Rule] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_partition(
        cls,
        partition: int,
        partitions: int,
        rules: Sequence[Rule],
        devices: Iterable[Device],
        units: Mapping[str, str] | None = None,
    ) -> Directory:
        """Return what the engine of a partition is told, of all devices."""
        own = {device.name: device for device in devices if partition_of(device.name, partitions) == partition}
        return cls(rules, own, units or {})
