"""What speaks against bringing the overlay up; looked at before anything is changed."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import Iterator

from mesh import names
from mesh.arp import who_has
from mesh.errors import CommandError, OverlayError
from mesh.found import Found, Link
from mesh.nodelist import VXLAN_OVERHEAD_BYTES, Node, Overlay
from mesh.plan import BUILDING, Place, mark
from mesh.system import missing, run, succeeds

PROGRAMS = {"ip": "iproute2", "nft": "nftables", "ovs-vsctl": "openvswitch-switch"}
"""What is needed, and in which package of Debian and Ubuntu it is."""

TRIALS = {
    "bridge": "ip link add trial0 type bridge",
    "nf_tables": "nft add table ip trial",
    "vxlan": "ip link add trial0 type vxlan id 1 dstport 4789 dev lo",
}
"""Features of the kernel, and what succeeds only with them; tried in a network namespace that is thrown away."""


def check_programs() -> None:
    """Refuse without the programs that are needed, or the right to use them.

    Raises:
        OverlayError: one is missing.
    """
    if os.geteuid() != 0:
        raise OverlayError("only root may change a node's network: use sudo")
    if absent := missing(tuple(PROGRAMS)):
        packages = " ".join(PROGRAMS[program] for program in absent)
        raise OverlayError(f"{', '.join(absent)} is not installed: apt-get install {packages}")


def place(overlay: Overlay, me: Node, found: Found) -> Place:
    """Find the interfaces that have this node's addresses.

    Raises:
        OverlayError: no interface has them.
    """
    holders = {address.ip: link.name for link in found.links.values() for address in link.addresses}

    def interface(address: IPv4Address) -> str:
        if address in holders:
            return holders[address]
        there = ", ".join(f"{name} {ip}" for ip, name in holders.items() if not ip.is_loopback) or "none"
        raise OverlayError(
            f"{address} of node {me.name} is on no interface here (there are: {there}): say who this is with --node, "
            "or give the interface its address"
        )

    return Place(me, interface(me.address), interface(me.outside.ip) if me.outside else "")


def check_state(found: Found) -> None:
    """Refuse where it cannot be told what is there, or where that is half of something.

    Raises:
        OverlayError: so it is.
    """
    if found.switches is None:
        raise OverlayError(f"Open vSwitch does not answer: {_why_not()}: start it (systemctl start openvswitch-switch)")
    for reason in half_up(found):
        raise OverlayError(reason)


def check(overlay: Overlay, where: Place, found: Found) -> None:
    """Refuse what would not work, or what would take from others.

    Raises:
        OverlayError: the first thing that speaks against it.
    """
    for reason in _reasons(overlay, where, found):
        raise OverlayError(reason)


def _reasons(overlay: Overlay, where: Place, found: Found) -> Iterator[str]:
    switch = (found.switches or {}).get(names.SWITCH)
    if switch and not switch.mark:
        yield f"Open vSwitch has a bridge {names.SWITCH} that is not ours: remove it (ovs-vsctl del-br {names.SWITCH})"
    if switch and switch.datapath != overlay.datapath:
        yield f"the overlay is up with datapath {switch.datapath}, not {overlay.datapath}: `overlay down` first"
    link = found.links[where.interface]
    if overlay.mtu + VXLAN_OVERHEAD_BYTES > link.mtu:
        yield (
            f"MTU {overlay.mtu} is too large: with the {VXLAN_OVERHEAD_BYTES} bytes of a tunnel it does not fit into the "
            f"{link.mtu} of {link.name}; set mtu = {link.mtu - VXLAN_OVERHEAD_BYTES} or less in all node lists"
        )
    yield from _taken(overlay, where, found)
    if found.filtering is None and not _has_module("br_netfilter"):
        yield (
            "the kernel has no module br_netfilter, without which the rules of Services and policies do not see what is "
            "bridged: boot a kernel that has it"
        )
    if not (switch and switch.mark):
        yield from _unfit(overlay)
        if other := who_has(link.name, where.me.address):
            yield f"{where.me.address} is also {other}'s on {link.name}: give one of the two machines another address"


def half_up(found: Found) -> Iterator[str]:
    """Say why what is there is neither up nor down."""
    parts = found.parts()
    switch = (found.switches or {}).get(names.SWITCH)
    there = f"there is {', '.join(parts)}"
    if switch and switch.mark == mark(BUILDING, found.boot):
        yield f"the overlay is half up, an `up` has not ended ({there}): `overlay down` cleans it away"
    elif switch and switch.mark.endswith(found.boot):
        base = {names.UPLINK: names.UPLINK in found.ports, names.POD_BRIDGE: names.POD_BRIDGE in found.links}
        if lost := [name for name, is_there in base.items() if not is_there]:
            yield f"the overlay is half up, {' and '.join(lost)} is gone ({there}): `overlay down` cleans it away"
    elif not switch and parts:
        yield f"the overlay is half up, {names.SWITCH} is missing ({there}): `overlay down` cleans it away"


def _taken(overlay: Overlay, where: Place, found: Found) -> Iterator[str]:
    bridge = found.links.get(names.POD_BRIDGE)
    if bridge and bridge.alias != names.MARK:
        yield f"there is a bridge {bridge.name} that is not ours: remove it (ip link del {bridge.name})"
    for link in found.links.values():
        if link.name in (names.POD_BRIDGE, where.interface):
            continue
        yield from _overlaps(overlay, link)
    for route in found.routes:
        if route.device != names.POD_BRIDGE and route.destination == str(overlay.pods):
            yield f"{overlay.pods} is routed to {route.device} already: give the pods another network, or remove the route"


def _overlaps(overlay: Overlay, link: Link) -> Iterator[str]:
    for address in link.addresses:
        if address.network.overlaps(overlay.pods):
            yield (
                f"{link.name} has {address}, which overlaps with the pods' {overlay.pods}: only {names.POD_BRIDGE} may lie "
                f"there; give the pods another network, or remove the address"
            )


def _unfit(overlay: Overlay) -> Iterator[str]:
    for feature, trial in TRIALS.items():
        if not succeeds("unshare", "--net", "sh", "-c", trial):
            yield f"the kernel has no {feature} (tried: {trial}): modprobe {feature}, or boot a kernel that has it"
    if overlay.datapath == "system" and not _has_module("openvswitch"):
        yield (
            "the kernel has no module openvswitch, which DATAPATH=system needs: modprobe openvswitch, or boot a kernel that "
            "has it; DATAPATH=netdev does without and is slower"
        )
    if overlay.datapath == "netdev" and not Path("/dev/net/tun").exists():
        yield "there is no /dev/net/tun, which DATAPATH=netdev needs: modprobe tun"


def _has_module(name: str) -> bool:
    return Path(f"/sys/module/{name}").exists() or succeeds("modprobe", "--dry-run", name)


def _why_not() -> str:
    try:
        run("ovs-vsctl", "--timeout=3", "show")
    except CommandError as error:
        return str(error)
    return "its database cannot be read"
