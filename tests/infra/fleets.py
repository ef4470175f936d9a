"""Fleets that send while parts are exchanged or lost: what of theirs is in the store."""

from __future__ import annotations

import copy
import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.infra.deployed import Deployed
from tests.support.manifests import Document, pod_of

Isotherm = Callable[..., str]
"""Runs a command of ours where the store is, and returns what it prints."""

LOAD = {"tcp": "isotherm-tcp:7301", "http": "isotherm-http:7310", "coap": "isotherm-coap:7302", "mqtt": "mosquitto:1883"}
"""Where each protocol is spoken."""


def stored(isotherm: Isotherm, protocols: Sequence[str]) -> Counter[str]:
    """Return how many readings the store has of each fleet; devices of the first begin at 100, of the next at 200, …"""
    try:
        table = isotherm("export", "-", "--series", "room-*/*", "--last", "1h")
    except AssertionError as error:
        if "no series matches" in str(error):
            return Counter()
        raise
    rows = csv.DictReader(io.StringIO(table))
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


def fleet_pod(simulator: Document, name: str, number: int, protocol: str, *options: str) -> Document:
    """Return a pod as those of the simulator, whose devices begin at 100 times one more than its number."""
    template = copy.deepcopy(pod_of(simulator))
    template["spec"]["restartPolicy"] = "Never"
    template["spec"]["containers"][0]["args"] = [
        "simulate", "--register", "--json", "--protocol", protocol, "--target", LOAD[protocol],
        "--first", str(100 * (1 + number)), *options,
    ]  # fmt: skip
    labels = {**template["metadata"]["labels"], "isotherm/needs-mqtt": "true"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": template["spec"]}


def send(deployed: Deployed, pods: Sequence[Document]) -> None:
    """Start fleets, each in its pod."""
    deployed.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*pods]}))
    deployed.kubectl("wait", "--for=condition=Ready", "--timeout=180s", *(f"pod/{one['metadata']['name']}" for one in pods))


def start(deployed: Deployed, pods: Sequence[Document], names: Sequence[str], seconds: float) -> None:
    """Start fleets, and wait until the store has something of each of them.

    Args:
        deployed: Where.
        pods: Each fleet's.
        names: All that are told by their devices' numbers.
        seconds: How long that may take.
    """
    send(deployed, pods)
    wait_until_more(deployed.isotherm, names, Counter({one["metadata"]["name"]: 0 for one in pods}), seconds)


def wait_until_more(isotherm: Isotherm, names: Sequence[str], than: Mapping[str, int], seconds: float) -> None:
    """Wait until the store has more of each of some fleets than it had."""
    deadline = time.monotonic() + seconds
    while not all((found := stored(isotherm, names))[name] > count for name, count in than.items()):
        assert time.monotonic() < deadline, f"stored {found}, before {than}"


def end(deployed: Deployed, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Have fleets end, and return what each says of itself."""
    accounts = {}
    for name in names:
        deployed.kubectl("exec", name, "--", "python3", "-c", "import os; os.kill(1, 15)")
        deployed.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s", f"pod/{name}")
        accounts[name] = json.loads(deployed.kubectl("logs", name).strip().splitlines()[-1])
    return accounts
