"""Fleets that send while parts are exchanged: as pods, and what of theirs is in the store."""

from __future__ import annotations

import copy
import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.support.manifests import Document, named, pod_of

Isotherm = Callable[..., str]
"""Runs a command of ours where the store is, and returns what it prints."""

Kubectl = Callable[..., str]
"""Runs kubectl in the platform's namespace, and returns what it prints."""

LOAD = {"tcp": "isotherm-tcp:7301", "http": "isotherm-http:7310", "coap": "isotherm-coap:7302", "mqtt": "mosquitto:1883"}


@dataclass(frozen=True)
class Fleet:
    """Devices that send from a pod.

    Attributes:
        name: Of the pod.
        protocol: What they speak.
        devices: How many.
        rate_hz: Readings a second of each.
        first: Number of the first.
    """

    name: str
    protocol: str
    devices: int
    rate_hz: float
    first: int

    def pod(self, documents: list[Document]) -> Document:
        """Return a pod as that of the platform's simulator, with devices of its own."""
        template = copy.deepcopy(pod_of(named(documents, "Deployment", "isotherm-simulator")))
        template["spec"]["restartPolicy"] = "Never"
        template["spec"]["containers"][0]["args"] = [
            "simulate", "--register", "--json", "--protocol", self.protocol, "--target", LOAD[self.protocol],
            "--rate", str(self.rate_hz), "--devices", str(self.devices), "--first", str(self.first),
        ]  # fmt: skip
        labels = {**template["metadata"]["labels"], "isotherm/needs-mqtt": "true"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels},
            "spec": template["spec"],
        }


def start_fleets(kubectl: Kubectl, documents: list[Document], fleets: Sequence[Fleet]) -> None:
    """Let fleets send, each from a pod of its own."""
    pods = {"apiVersion": "v1", "kind": "List", "items": [one.pod(documents) for one in fleets]}
    kubectl("apply", "--filename=-", stdin=json.dumps(pods))
    kubectl("wait", "--for=condition=Ready", "--timeout=180s", *(f"pod/{one.name}" for one in fleets))


def end_fleet(kubectl: Kubectl, name: str) -> dict[str, int]:
    """Let a fleet end in order; returns its account."""
    kubectl("exec", name, "--", "python3", "-c", "import os; os.kill(1, 15)")
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s", f"pod/{name}")
    account: dict[str, int] = json.loads(kubectl("logs", name).strip().splitlines()[-1])
    return account


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
    """Wait until the store has what was acknowledged, and see that it has no more than was sent.

    Args:
        isotherm: Runs a command of ours.
        protocols: As for `stored`.
        accounts: Of some of these fleets.
        seconds: For how long.
    """
    assert all(account["acknowledged"] > 0 for account in accounts.values()), accounts
    deadline = time.monotonic() + seconds
    found: Counter[str] = Counter()
    while any(found[protocol] < account["acknowledged"] for protocol, account in accounts.items()):
        assert time.monotonic() < deadline, f"stored {found} of {accounts}"
        found = stored(isotherm, protocols)
    assert all(found[protocol] <= account["sent"] for protocol, account in accounts.items()), f"stored {found} of {accounts}"
