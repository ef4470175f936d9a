"""Derived readings as packs, as large as Kafka takes them."""

from __future__ import annotations

import numpy as np
import pytest

from agents.engine import Derived
from agents.numbering import Numbering
from isotherm.kafka import MAX_VALUE_BYTES
from isotherm.limits import MAX_NAME_CHARS

DEVICE = "d" * MAX_NAME_CHARS


@pytest.mark.parametrize("names", [1, 25_000])
def test_packs_are_no_larger_than_a_record_and_hold_every_reading_once(names: int) -> None:
    """The names of 25,000 series that come together are 6 MB long."""
    series = [f"{DEVICE}/{number:0{MAX_NAME_CHARS}}" for number in range(names)]
    which = np.arange(25_000) % names
    value = np.arange(25_000, dtype=np.float64)
    derived = Derived(series, which, np.arange(25_000), value, "Cel")
    packs = list(Numbering({}, "agent/mine/1").packs([derived], 1))
    assert max(len(pack.to_ipc()) for pack in packs) <= MAX_VALUE_BYTES
    made = [
        (pack.names[at], time, found)
        for pack in packs
        for at, time, found in zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), strict=True)
    ]
    assert made == [(series[at], time, float(time)) for time, at in enumerate(which.tolist())]
    told: dict[str, str] = {}
    for pack in packs:
        assert pack.seq is not None
        assert pack.units.keys() <= set(pack.names)
        told |= pack.units
    assert told == dict.fromkeys(series, "Cel")
    assert max(int(pack.seq.max()) for pack in packs if pack.seq is not None) == 25_000 // names - 1
