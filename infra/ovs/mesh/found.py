"""What is there on this node: the kernel's interfaces and routes, Open vSwitch's bridges and ports, our files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Mapping

from mesh import names
from mesh.errors import CommandError
from mesh.system import ip, ovs_table, run, succeeds

BOOT = Path("/proc/sys/kernel/random/boot_id")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass(frozen=True)
class Link:
    """A network interface as the kernel has it."""

    name: str
    mtu: int
    mac: str
    alias: str = ""
    master: str = ""
    hairpin: bool = False
    is_up: bool = True
    addresses: tuple[IPv4Interface, ...] = ()


@dataclass(frozen=True)
class Port:
    """A port of one of Open vSwitch's bridges, with its one interface."""

    name: str
    bridge: str
    kind: str
    options: Mapping[str, str] = field(default_factory=dict)
    bfd: Mapping[str, str] = field(default_factory=dict)
    bfd_status: Mapping[str, str] = field(default_factory=dict)
    protected: bool = False
    error: str = ""


@dataclass(frozen=True)
class Switch:
    """A bridge of Open vSwitch."""

    name: str
    datapath: str
    mark: str
    spanning_tree: bool = False


@dataclass(frozen=True)
class Route:
    """A route of the main table."""

    destination: str
    device: str
    gateway: str = ""
    protocol: str = ""
    metric: int = 0


@dataclass(frozen=True)
class Found:
    """All that matters on a node.

    Attributes:
        links: Interfaces by name.
        switches: Bridges of Open vSwitch by name; None when it does not answer.
        ports: Their ports by name.
        routes: All of the main table, IPv4.
        rules: The mark of our nftables table, or None when there is no such table.
        conflist: Our CNI configuration, or None.
        moved: What the datapath netdev has taken from an interface, or None.
        forwarding: Whether the kernel routes.
        filtering: Whether what is bridged passes the kernel's rules; None without its module br_netfilter.
        boot: Which boot of the kernel this is.
    """

    links: Mapping[str, Link]
    switches: Mapping[str, Switch] | None
    ports: Mapping[str, Port]
    routes: tuple[Route, ...]
    rules: str | None
    conflist: str | None
    moved: Mapping[str, Any] | None
    forwarding: bool
    filtering: bool | None
    boot: str

    def parts(self) -> list[str]:
        """Say which of our parts are there."""
        said = [f"{name} of Open vSwitch" for name, switch in sorted((self.switches or {}).items()) if switch.mark]
        bridge = self.links.get(names.POD_BRIDGE)
        if bridge and bridge.alias == names.MARK:
            said.append(f"{bridge.name} with {' '.join(map(str, bridge.addresses)) or 'no address'}")
        said += [f"port {port.name}" for _, port in sorted(self.ports.items()) if self._is_ours(port)]
        said += [f"route {route.destination}" for route in self.our_routes()]
        if self.rules is not None:
            said.append(f"nftables' table {names.TABLE}")
        if self.conflist is not None:
            said.append(str(names.cni_configuration()))
        if self.moved is not None:
            said.append(f"{self.moved['interface']}'s addresses on {names.UNDERLAY_SWITCH}")
        return said

    def pods(self) -> list[str]:
        """Return the interfaces of pods."""
        return [link.name for link in self.links.values() if link.master == names.POD_BRIDGE and link.name != names.UPLINK]

    def tunnels(self) -> list[Port]:
        """Return the tunnels that there are."""
        return [port for port in self.ports.values() if port.bridge == names.SWITCH and port.kind == "vxlan"]

    def our_routes(self) -> list[Route]:
        """Return the routes that we have made."""
        return [route for route in self.routes if route.protocol == names.PROTOCOL]

    def _is_ours(self, port: Port) -> bool:
        switch = (self.switches or {}).get(port.bridge)
        return bool(switch and switch.mark) and port.kind in ("vxlan", "internal") and port.name != port.bridge


def look() -> Found:
    """Look at everything; what cannot be read counts as not there.

    Raises:
        CommandError: iproute2 is missing.
    """
    switches, ports = _open_vswitch()
    return Found(
        links=_links(),
        switches=switches,
        ports=ports,
        routes=_routes(),
        rules=_rules(),
        conflist=_text(names.cni_configuration()),
        moved=json.loads(_text(names.moved()) or "null"),
        forwarding=FORWARDING.read_text().strip() == "1",
        filtering=None if (bridged := _text(BRIDGED)) is None else bridged.strip() == "1",
        boot=BOOT.read_text().strip(),
    )


def _links() -> dict[str, Link]:
    return {
        link["ifname"]: Link(
            name=link["ifname"],
            mtu=int(link["mtu"]),
            mac=link.get("address", ""),
            alias=link.get("ifalias", ""),
            master=link.get("master", ""),
            hairpin=bool(link.get("linkinfo", {}).get("info_slave_data", {}).get("hairpin")),
            is_up="UP" in link["flags"],
            addresses=tuple(
                IPv4Interface(f"{address['local']}/{address['prefixlen']}")
                for address in link["addr_info"]
                if address["family"] == "inet"
            ),
        )
        for link in ip("address", "show")
    }


def _routes() -> tuple[Route, ...]:
    return tuple(
        Route(
            route["dst"], route["dev"], route.get("gateway", ""), str(route.get("protocol", "")), int(route.get("metric", 0))
        )
        for route in ip("-4", "route", "show")
        if "dev" in route  # one over several interfaces has none, and is none of ours
    )


def _open_vswitch() -> tuple[dict[str, Switch] | None, dict[str, Port]]:
    try:
        bridges, ports, interfaces = (ovs_table(table) for table in ("Bridge", "Port", "Interface"))
    except CommandError:
        return None, {}
    of_interface = {row["_uuid"]: row for row in interfaces}
    home = {port: row["name"] for row in bridges for port in _many(row["ports"])}
    switches = {
        row["name"]: Switch(
            name=row["name"],
            datapath=row["datapath_type"] or "system",
            mark=row["external_ids"].get(names.MARK, ""),
            spanning_tree=row["stp_enable"] or row["rstp_enable"],
        )
        for row in bridges
    }
    found = {}
    for row in ports:
        for interface in (of_interface[one] for one in _many(row["interfaces"]) if one in of_interface):
            found[row["name"]] = Port(
                name=row["name"],
                bridge=home.get(row["_uuid"], ""),
                kind=interface["type"],
                options=interface["options"],
                bfd=interface["bfd"],
                bfd_status=interface["bfd_status"],
                protected=row["protected"] is True,
                error=interface["error"] if isinstance(interface["error"], str) else "",
            )
    return switches, found


def _many(value: Any) -> list[str]:
    """A set of one is written as the one."""
    return value if isinstance(value, list) else [value]


def _rules() -> str | None:
    if not succeeds("nft", "list", "table", "ip", names.TABLE):
        return None
    for line in run("nft", "list", "table", "ip", names.TABLE).splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "comment":
            return value.strip('"')
    return ""


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
