"""Taking away whatever is there of the overlay, in whatever state it is."""

from __future__ import annotations

from typing import Iterator

from mesh import names
from mesh.found import Found
from mesh.plan import Step, moving


def steps(found: Found) -> list[Step]:
    """Return what takes away all that is ours; it needs no node list, and each step stands for itself.

    The kernel keeps forwarding, for others may have come to rely on it.
    """
    return [*_files(found), *_kernel(found), *_open_vswitch(found), *_given_back(found)]


def _files(found: Found) -> Iterator[Step]:
    if found.conflist is not None:
        path = str(names.cni_configuration())
        leases = str(names.cni_leases() / names.CNI_NETWORK)
        yield Step(f"no {path}, no leases in {leases}", (("rm", "-f", path), ("rm", "-rf", leases)))


def _kernel(found: Found) -> Iterator[Step]:
    for route in found.our_routes():
        words = ("ip", "route", "del", route.destination, "proto", names.PROTOCOL)
        yield Step(f"no route {route.destination}", (words,))
    if found.rules is not None:
        yield Step(f"no table {names.TABLE} of nftables", (("nft", "delete", "table", "ip", names.TABLE),))
    bridge = found.links.get(names.POD_BRIDGE)
    if bridge and bridge.alias == names.MARK:
        left = len(found.pods())
        yield Step(
            f"no bridge {bridge.name}" + (f", on which {left} pods were: start them anew" if left else ""),
            (("ip", "link", "del", bridge.name),),
        )


def _open_vswitch(found: Found) -> Iterator[Step]:
    for switch in (found.switches or {}).values():
        if switch.mark:
            yield Step(f"no bridge {switch.name} of Open vSwitch", (("ovs-vsctl", "--timeout=10", "del-br", switch.name),))


def _given_back(found: Found) -> Iterator[Step]:
    taken = found.moved
    if taken is None:
        return
    addresses = " ".join(taken["addresses"])
    giving = moving("", taken["interface"], taken)
    yield Step(f"{taken['interface']} has {addresses} back", (*giving, ("rm", "-f", str(names.moved()))))
