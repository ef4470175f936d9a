"""A Kubernetes of three nodes whose pods' network is infra/ovs: each node has an Open vSwitch, and may lose its power.

here ── switch, with the control plane ─┬─ n1   br-phy, br-pod, cni0: `overlay up`
                                        ├─ n2
                                        └─ n3
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support import control_plane, machine, node, overlay_lab, switch
from tests.support.control_plane import ControlPlane, until
from tests.support.machine import Machine
from tests.support.overlay_lab import OVERLAY, SCHEMA
from tests.support.switch import Switch

NAMES = ("n1", "n2", "n3")
VOLUMES = 12


def available() -> str | None:
    """Say why there can be none here, or None when there can."""
    if reason := node.available() or overlay_lab.unavailable():
        return reason
    return None if shutil.which("ethtool") else "ethtool is not installed; see tests/prepare.sh"


@dataclass
class Member:
    """A node, with power or without.

    Attributes:
        name: Its name.
        folder: Its disk.
        address: On the link between the nodes.
        machine: It, while it has power.
    """

    name: str
    folder: Path
    address: str
    machine: Machine | None = None
    power: ExitStack = field(default_factory=ExitStack)

    @property
    def running(self) -> Machine:
        """Return it as it runs."""
        assert self.machine is not None, f"{self.name} has no power"
        return self.machine

    def overlay(self, *arguments: str) -> str:
        """Run the overlay's script there, and return what it prints."""
        command, *options = arguments
        places = (f"OVERLAY_CNI_CONFIGURATION={self.folder / 'cni'}", f"OVERLAY_CNI_LEASES={self.folder / 'leases'}")
        who = ("--nodes", str(self.folder / "nodes.ini"), "--node", self.name)
        return self.running.run("env", *places, OVERLAY, command, *who, *options)


@dataclass(frozen=True)
class Cluster:
    """One that runs."""

    switch: Switch
    plane: ControlPlane
    members: Mapping[str, Member]

    def cut_power(self, name: str) -> None:
        """End all that runs on a node at once, and its network: nobody is told anything."""
        member = self.members[name]
        os.kill(member.running.pid, signal.SIGKILL)
        member.power.close()
        member.machine = None

    def switch_on(self, name: str) -> None:
        """Start a node as after a power cut: what is on its disk is there."""
        member = self.members[name]
        _boot(self.switch, member)
        _join(member, self.plane)

    def lead(self, address: str, name: str) -> None:
        """Have what is sent from here to an address go to a node, as MetalLB does."""
        machine.run("ip", "route", "replace", f"{address}/32", "via", self.members[name].address, "dev", self.switch.cable)


@contextmanager
def running(loaded: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster of three nodes for the length of the block.

    Args:
        loaded: What it calls an image → what podman calls it.
    """
    with ExitStack() as stack:
        link = stack.enter_context(switch.running())
        members = {}
        for number, name in enumerate(NAMES, start=1):
            folder = stack.enter_context(machine.furnished(number))
            members[name] = Member(name, folder, link.free[number - 1])
            stack.callback(members[name].power.close)
        for one in members.values():
            (one.folder / "nodes.ini").write_text(node_list(link, members))
            _boot(link, one)
        node.load([one.running for one in members.values()], loaded)
        plane = stack.enter_context(control_plane.running(link.machine.folder, link.machine, NAMES))
        for one in members.values():
            documents = "".join(node.volumes(one.name, one.folder, VOLUMES))
            plane.kubectl("apply", "--filename=-", stdin=documents)
            _join(one, plane)
        plane.kubectl("apply", "--filename=-", stdin=node.dns())
        plane.kubectl("scale", "--namespace=kube-system", "deployment/coredns", "--replicas=2")
        for name in members:
            until(partial(node.knows, plane, name, set(loaded)), f"{name} is ready and knows its images")
        plane.kubectl("rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=60s")
        stack.enter_context(node.addresses_given(plane, link.free[len(members) :]))
        yield Cluster(link, plane, members)


def node_list(link: Switch, members: Mapping[str, Member]) -> str:
    """Return what infra/ovs reads."""
    lines = ["[overlay]", f"underlay = {link.network}", f"pods = {node.PODS}", "datapath = netdev"]
    for number, one in enumerate(members.values(), start=1):
        lines += [f"[node {one.name}]", f"number = {number}", f"address = {one.address}"]
    return "\n".join(lines) + "\n"


def _boot(link: Switch, member: Member) -> None:
    """Give it power, Open vSwitch, the pods' network, and containerd."""
    member.machine = host = member.power.enter_context(switch.plugged(link, member.folder, member.address))
    node.prepare(host)
    _start_open_vswitch(host, member.power)
    member.overlay("up")
    node.start_containerd(host, member.power)


def _join(member: Member, plane: ControlPlane) -> None:
    node.join(member.running, member.name, plane, member.power)
    until(lambda: node.knows(plane, member.name, set()), f"{member.name} is ready")
    node.enforce_policies(member.running, member.name, plane, member.power)


def _start_open_vswitch(host: Machine, stack: ExitStack) -> None:
    """On its database of before, if there is one."""
    database, run = host.folder / "switch.db", Path("/run/openvswitch")
    host.run("mkdir", run)
    if not database.exists():
        host.run("ovsdb-tool", "create", database, SCHEMA)
    node.start(host, stack, "ovsdb", "ovsdb-server", database, f"--remote=punix:{run}/db.sock", f"--unixctl={run}/ovsdb.ctl")
    until(lambda: node.exists(host, f"{run}/db.sock"), "Open vSwitch's database answers")
    host.run("ovs-vsctl", "--no-wait", "init")
    node.start(host, stack, "switch", "ovs-vswitchd", f"unix:{run}/db.sock", f"--unixctl={run}/switch.ctl")
