"""The node list: text in, a checked :class:`Overlay` out, no I/O.

Everything about addresses is decided here, so what two nodes must agree on follows from the same few lines of text.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Callable, Mapping, TypeVar

from mesh.errors import NodeListError

VXLAN_OVERHEAD_BYTES = 50
"""Outer Ethernet without its check sequence 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 §5)."""

MIN_MTU, MAX_MTU = 1280, 9000 - VXLAN_OVERHEAD_BYTES
MAX_VNI = 2**24 - 1
NODE_PREFIX = 24
"""Each node has so long a prefix of the pods' network for its pods."""

POD_PREFIXES = range(12, 23)
GATEWAY, FIRST_POD, LAST_POD = 1, 20, 250
"""Hosts of a node's part: its own address there, and those that its pods are given."""

PRIVATE = tuple(IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
DATAPATHS = ("system", "netdev")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Node:
    """A machine.

    Attributes:
        name: RFC 1123 label.
        number: Its part of the pods' network; never changes, so that nobody else's addresses do when nodes come and go.
        address: On the underlay.
        outside: Of its second interface, when it is the one through which others reach the pods.
        pods: Its part.
    """

    name: str
    number: int
    address: IPv4Address
    outside: IPv4Interface | None
    pods: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        """Its own address among the pods."""
        return self.pods.network_address + GATEWAY

    @property
    def first_pod(self) -> IPv4Address:
        """The first address that a pod is given."""
        return self.pods.network_address + FIRST_POD

    @property
    def last_pod(self) -> IPv4Address:
        """The last address that a pod is given."""
        return self.pods.network_address + LAST_POD

    @property
    def tunnel(self) -> str:
        """What other nodes call their port to it; a node's name may be longer than the kernel takes."""
        return f"vx{self.number}"

    @property
    def mac(self) -> str:
        """Of its address among the pods: fixed, for a Linux bridge changes its own with each port that comes and goes."""
        return "0a:58:" + ":".join(f"{byte:02x}" for byte in self.gateway.packed)


@dataclass(frozen=True)
class Overlay:
    """What all nodes agree on."""

    pods: IPv4Network
    underlay: IPv4Network
    mtu: int
    vni: int
    datapath: str
    nodes: tuple[Node, ...]

    @property
    def entrance(self) -> Node | None:
        """The node with an ``outside``, if there is one."""
        return next((node for node in self.nodes if node.outside), None)

    def node(self, name: str) -> Node:
        """Return a node by its name.

        Raises:
            NodeListError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise NodeListError(
            f"node {name!r} is not in the node list, which has {known}: add it, or say who this is with --node"
        )

    def others(self, node: Node) -> tuple[Node, ...]:
        """Return all nodes but one."""
        return tuple(other for other in self.nodes if other is not node)


def parse(text: str) -> Overlay:
    """Read a node list.

    Raises:
        NodeListError: it is wrong; the message names the section, the setting and the mend.

    >>> overlay = parse("[overlay]\\nunderlay = 192.168.56.0/24\\n[node cp1]\\nnumber = 1\\naddress = 192.168.56.11")
    >>> overlay.node("cp1").gateway
    IPv4Address('10.244.1.1')
    """
    file = configparser.ConfigParser(interpolation=None, default_section="", delimiters=("=",))
    try:
        file.read_string(text, "the node list")
    except configparser.Error as error:
        raise NodeListError(" ".join(str(error).replace("\n", " ").split())) from error
    if not file.has_section("overlay"):
        raise NodeListError("there is no section [overlay]: it names the underlay, such as underlay = 192.168.56.0/24")
    common = _Section("overlay", file["overlay"], ("pods", "underlay", "mtu", "vni", "datapath"))
    pods = common.get("pods", _pods, "10.244.0.0/16")
    underlay = common.get("underlay", _network)
    overlay = Overlay(
        pods=pods,
        underlay=underlay,
        mtu=common.get("mtu", _between(MIN_MTU, MAX_MTU), "1450"),
        vni=common.get("vni", _between(1, MAX_VNI), "42"),
        datapath=common.get("datapath", datapath, "system"),
        nodes=tuple(_node(title, file[title], pods) for title in file.sections() if title != "overlay"),
    )
    _check_networks(overlay)
    _check_nodes(overlay)
    return overlay


def datapath(text: str) -> str:
    """Check which of Open vSwitch's datapaths is meant.

    Raises:
        ValueError: neither.
    """
    if text not in DATAPATHS:
        raise ValueError(f"expected {' or '.join(DATAPATHS)}")
    return text


class _Section:
    """A section whose settings are known by name."""

    def __init__(self, title: str, values: Mapping[str, str], known: tuple[str, ...]) -> None:
        self.title, self._values = title, values
        for name in values:
            if name not in known:
                raise NodeListError(f"[{title}] has {name!r}, which is no setting: expected {', '.join(known)}")

    def get(self, name: str, read: Callable[[str], _T], default: str | None = None) -> _T:
        text = self._values.get(name, default)
        if text is None:
            raise NodeListError(f"[{self.title}] has no {name}: add a line {name} = …")
        try:
            return read(text)
        except ValueError as error:
            raise NodeListError(f"[{self.title}] {name} is {text!r}: {error}") from error


def _node(title: str, values: Mapping[str, str], pods: IPv4Network) -> Node:
    kind, _, name = title.partition(" ")
    if kind != "node":
        raise NodeListError(f"section [{title}] is not known: expected [overlay] or [node NAME]")
    if not _NAME.fullmatch(name):
        raise NodeListError(f"[{title}]: a node's name has 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -")
    section = _Section(title, values, ("number", "address", "outside"))
    number = section.get("number", _between(1, 2 ** (NODE_PREFIX - pods.prefixlen) - 1))
    return Node(
        name,
        number,
        section.get("address", IPv4Address),
        section.get("outside", _interface) if "outside" in values else None,
        IPv4Network((int(pods.network_address) + (number << (32 - NODE_PREFIX)), NODE_PREFIX)),
    )


def _check_networks(overlay: Overlay) -> None:
    for name, network in (("pods", overlay.pods), ("underlay", overlay.underlay)):
        if not any(network.subnet_of(private) for private in PRIVATE):
            raise NodeListError(
                f"[overlay] {name} is {network}, which belongs to others on the Internet: take a part of "
                f"{', '.join(map(str, PRIVATE))} (RFC 1918, RFC 6598)"
            )
    if overlay.pods.overlaps(overlay.underlay):
        raise NodeListError(
            f"[overlay] pods {overlay.pods} and underlay {overlay.underlay} overlap: a tunnel would lead into itself; "
            "give the pods another network"
        )


def _check_nodes(overlay: Overlay) -> None:
    if not overlay.nodes:
        raise NodeListError("there is no node: add a section [node NAME] with number and address")
    numbers: dict[int, str] = {}
    addresses: dict[IPv4Address, str] = {}
    for node in overlay.nodes:
        if node.address not in overlay.underlay or node.address in _ends(overlay.underlay):
            raise NodeListError(f"[node {node.name}] address {node.address} is no host of the underlay {overlay.underlay}")
        if node.number in numbers:
            raise NodeListError(
                f"[node {node.name}] number {node.number} is {numbers[node.number]}'s, and so would be the pods' addresses: "
                "take a free one"
            )
        numbers[node.number] = node.name
        for address in (node.address, *([node.outside.ip] if node.outside else [])):
            if address in addresses:
                raise NodeListError(
                    f"[node {node.name}] {address} is {addresses[address]}'s: each address belongs to one node"
                )
            addresses[address] = node.name
    _check_outside(overlay)


def _check_outside(overlay: Overlay) -> None:
    entrances = [node for node in overlay.nodes if node.outside]
    if len(entrances) > 1:
        names = " and ".join(node.name for node in entrances)
        raise NodeListError(f"{names} have an outside: answers of the pods go back by one way, so one node may have it")
    for node in entrances:
        assert node.outside is not None
        outside = node.outside.network
        if node.outside.ip in _ends(outside):
            raise NodeListError(f"[node {node.name}] outside {node.outside} is no host of {outside}")
        for name, network in (("pods", overlay.pods), ("underlay", overlay.underlay)):
            if outside.overlaps(network):
                raise NodeListError(
                    f"[node {node.name}] outside {outside} overlaps with the {name} {network}: who is outside must be told "
                    "by the address; take another network"
                )


def _ends(network: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    return network.network_address, network.broadcast_address


def _network(text: str) -> IPv4Network:
    if "/" not in text:
        raise ValueError("expected a network such as 192.168.56.0/24")
    return IPv4Network(text)


def _pods(text: str) -> IPv4Network:
    network = _network(text)
    if network.prefixlen not in POD_PREFIXES:
        raise ValueError(f"expected /{POD_PREFIXES[0]} to /{POD_PREFIXES[-1]}, of which each node has a /24")
    return network


def _interface(text: str) -> IPv4Interface:
    if "/" not in text:
        raise ValueError("expected an address with its prefix, such as 192.168.57.11/24")
    return IPv4Interface(text)


def _between(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return read
