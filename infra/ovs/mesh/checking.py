"""Does the overlay do what it is for: what is tried, what came of it, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from mesh import names
from mesh.arp import copies, who_has
from mesh.found import Found
from mesh.nodelist import Node, Overlay
from mesh.plan import Place, steps
from mesh.system import succeeds

ICMP_OVERHEAD_BYTES = 28
LOOP_SECONDS = 0.3


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        what: What should be so.
        is_good: Whether it is.
        mend: What to do when it is not.
    """

    what: str
    is_good: bool
    mend: str = ""


def check(overlay: Overlay, where: Place, found: Found) -> Iterator[Finding]:
    """Try everything that this node can try by itself."""
    changes = steps(overlay, where, found)
    yield Finding(
        "all is as the node list says", not changes, f"`overlay up` would change: {'; '.join(step.what for step in changes)}"
    )
    if names.POD_BRIDGE not in found.links:
        return
    yield from _never_a_storm(found)
    other = who_has(names.POD_BRIDGE, where.me.gateway)
    yield Finding(
        f"{where.me.gateway} is ours alone",
        other is None,
        f"{other} has it, too: two nodes have the number {where.me.number}; bring them up from the same node list",
    )
    for node in overlay.others(where.me):
        yield from _reaches(overlay, node, found)


def _never_a_storm(found: Found) -> Iterator[Finding]:
    open_ports = [port.name for port in found.tunnels() if not port.protected]
    yield Finding(
        "split horizon: nothing goes from one tunnel to another",
        not open_ports,
        f"{', '.join(open_ports)} is not protected: `overlay up`",
    )
    uplink = found.links.get(names.UPLINK)
    yield Finding(
        f"no hairpin on the uplink {names.UPLINK}",
        bool(uplink and not uplink.hairpin),
        "`overlay up` turns it off, or `down` first",
    )
    count = copies(names.POD_BRIDGE, LOOP_SECONDS)
    yield Finding(
        "what is sent to all does not come back",
        count == 0,
        f"it came back {count} times: there is a loop; look for bridges between nodes beside the tunnels",
    )


def _reaches(overlay: Overlay, node: Node, found: Found) -> Iterator[Finding]:
    port = found.ports.get(node.tunnel)
    state = port.bfd_status.get("state", "missing") if port else "missing"
    why = (port.error if port else "") or "is the node up, is its overlay up, does a firewall let UDP 4789 through"
    yield Finding(f"{node.name}: its tunnel is alive (BFD)", state == "up", f"it is {state}: {why}?")
    yield Finding(
        f"{node.name}: {node.gateway} answers",
        _pings(node, 56),
        f"look at `ovs-vsctl show` and `overlay check` on {node.name}",
    )
    fits = overlay.mtu - ICMP_OVERHEAD_BYTES
    yield Finding(
        f"{node.name}: {overlay.mtu} bytes pass whole",
        _pings(node, fits),
        f"the underlay loses large packets: its MTU must be {overlay.mtu + 50} on every interface and switch in between",
    )
    yield Finding(
        f"{node.name}: {overlay.mtu + 1} bytes are refused at once",
        not _pings(node, fits + 1, seconds=0.2),
        f"{names.POD_BRIDGE} has another MTU than the node list: `overlay up`",
    )


def _pings(node: Node, size: int, seconds: float = 2.0) -> bool:
    # -M do: must not be cut in pieces.
    return succeeds("ping", "-n", "-q", "-M", "do", "-c", "1", "-W", str(seconds), "-s", str(size), str(node.gateway))
