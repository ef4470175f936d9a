"""Machines on one link: a switch, which is a machine as well, and others that are plugged in, with or without power."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tests.support import machine
from tests.support.machine import PREFIX_BITS, Machine

NETWORKS = list(IPv4Network("100.126.0.0/15").subnets(new_prefix=PREFIX_BITS))
"""Of the addresses that many share (RFC 6598), for the overlay takes none that may be somebody's."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One that runs.

    Attributes:
        machine: That it is; on the link itself, too.
        network: The link's.
        gateway: Our address on it.
        cable: What leads from here to it.
        free: Addresses that nobody has.
    """

    machine: Machine
    network: IPv4Network
    gateway: str
    cable: str
    free: tuple[str, ...]


@contextmanager
def running() -> Iterator[Switch]:
    """A switch for the length of the block."""
    ours, its, *free = machine.addresses(NETWORKS)
    with machine.furnished() as folder, machine.powered(folder, its) as host, machine.cable(host) as cable:
        machine.run("ip", "address", "add", f"{ours}/{PREFIX_BITS}", "dev", cable)
        host.run("ip", "link", "add", "switch", "type", "bridge")
        host.run("ip", "link", "set", "eth0", "master", "switch", "up")
        host.run("ip", "address", "add", f"{its}/{PREFIX_BITS}", "dev", "switch")
        host.run("ip", "link", "set", "switch", "up")
        # Who takes packets off a cable by himself, as Open vSwitch's own datapath does, needs whole ones.
        machine.run("ethtool", "-K", cable, "tx", "off")
        host.run("ethtool", "-K", "switch", "tx", "off")
        yield Switch(host, IPv4Network(f"{its}/{PREFIX_BITS}", strict=False), ours, cable, tuple(free))


@contextmanager
def plugged(switch: Switch, folder: Path, address: str) -> Iterator[Machine]:
    """A machine that runs for the length of the block, or until its power is cut, and is on the link."""
    with machine.powered(folder, address) as host:
        port = f"port{host.pid}"
        words = ("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        machine.run("nsenter", f"--target={switch.machine.pid}", "--net", "ip", *words)  # where process ids are ours
        switch.machine.run("ip", "link", "set", port, "master", "switch", "up")
        machine.connect(host, switch.gateway)
        yield host
