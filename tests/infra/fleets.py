"""Fleets that send while parts are exchanged: what of theirs is in the store."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

Isotherm = Callable[..., str]
"""Runs a command of ours where the store is, and returns what it prints."""


def stored(isotherm: Isotherm, protocols: Sequence[str]) -> Counter[str]:
    """Return how many readings the store has of each fleet; devices of the first begin at 100, of the next at 200, …"""
    rows = csv.DictReader(io.StringIO(isotherm("export", "-", "--series", "room-*/*", "--last", "1h")))
    found: Counter[str] = Counter()
    for row in rows:
        number = int(row["device"].removeprefix("room-")) - 1
        if number >= 100:
            found[protocols[number // 100 - 1]] += int(row["count"])
    return found


def wait_until_stored(
    isotherm: Isotherm, protocols: Sequence[str], accounts: Mapping[str, Mapping[str, int]], seconds: float
) -> None:
    """Wait until the store has what was acknowledged, and see that it has no more than was sent."""
    assert all(account["acknowledged"] > 0 for account in accounts.values()), accounts
    deadline = time.monotonic() + seconds
    found: Counter[str] = Counter()
    while any(found[protocol] < accounts[protocol]["acknowledged"] for protocol in protocols):
        assert time.monotonic() < deadline, f"stored {found} of {accounts}"
        found = stored(isotherm, protocols)
    assert all(found[protocol] <= accounts[protocol]["sent"] for protocol in protocols), f"stored {found} of {accounts}"
