"""Machines that do not exist: three hosts on a switch, a place outside, pods; each a network namespace of the kernel.

A namespace has no name; it lives as long as the process that was made in it, and that dies with us, even by SIGKILL, as do
all programs in it: the kernel sees to that (PR_SET_PDEATHSIG). So a run that is killed leaves nothing, and nobody has to
look for it.

    outside 192.168.57.1 ── h1: second interface 192.168.57.11
                            h1 192.168.56.11 ─┐
                            h2 192.168.56.21 ─┼─ switch
                            h3 192.168.56.22 ─┘

`python -m tests.support.overlay_lab DIRECTORY` brings all of it up, prints its process ids and waits for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "infra" / "ovs" / "overlay"
PEERS = Path(__file__).parent / "overlay_peers.py"
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
CNI = Path("/usr/lib/cni")
SECONDS = 30.0
POLL_SECONDS = 0.01

ADDRESSES = ("192.168.56.11", "192.168.56.21", "192.168.56.22")
OUTSIDE = "192.168.57.11/24"
CLIENT = "192.168.57.1"


def unavailable() -> str | None:
    """Say why there can be no such machines here, or None when there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    programs = ("ovs-vsctl", "ovsdb-server", "ovs-vswitchd", "nft", "ip", "ping", "nsenter", "unshare", "setpriv")
    if absent := [program for program in programs if shutil.which(program, path=_PATH) is None]:
        return f"{', '.join(absent)} is not installed; see tests/prepare.sh"
    if not (CNI / "bridge").exists():
        return f"the CNI plug-ins are not in {CNI}; see tests/prepare.sh"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "trial0", "type", "bridge"], capture_output=True, text=True
    )
    return f"no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_NSENTER = shutil.which("nsenter") or "nsenter"


Space = TypeVar("Space", bound="Namespace")


class Namespace:
    """A network namespace, and the programs that were started in it."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.environment = {**os.environ, "PATH": _PATH, **(environment or {})}
        self._programs: list[subprocess.Popen[str]] = []
        self._holder = subprocess.Popen([*MORTAL, "unshare", "--net", "sleep", "infinity"], env=self.environment)
        ours = Path("/proc/self/ns/net").readlink()
        wait_for(lambda: self.is_running() and Path(self.path).readlink() != ours, f"namespace {name}")
        self.inode = str(Path(self.path).readlink())
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> str:
        """A file that stands for it."""
        return f"/proc/{self._holder.pid}/ns/net"

    @property
    def pids(self) -> list[int]:
        """Of the processes that it consists of."""
        return [self._holder.pid, *(program.pid for program in self._programs if program.poll() is None)]

    def is_running(self) -> bool:
        """Tell whether it is still there."""
        return self._holder.poll() is None

    def within(self, *command: str) -> list[str]:
        """Return what runs a program in it."""
        return [_NSENTER, f"--net={self.path}", "--", *command]

    def run(
        self,
        *command: str,
        check: bool = True,
        given: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        done = subprocess.run(
            self.within(*command),
            input=given,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0 or not check, f"{self.name}: {' '.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def start(
        self, *command: str, log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program that ends with us; its output goes to a log, or can be read from it."""
        with contextlib.ExitStack() as stack:
            output: IO[Any] | int = stack.enter_context(log.open("ab")) if log else subprocess.PIPE
            program = subprocess.Popen(
                [*MORTAL, *self.within(*command)],
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._programs.append(program)
        return program

    def peer(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one of overlay_peers, and wait until it listens if it does."""
        program = self.start(sys.executable, "-S", "-E", str(PEERS), *arguments)
        if arguments[0] in ("serve", "listen"):
            assert program.stdout is not None and program.stdout.readline() == "listening\n", f"{self.name}: {arguments}"
        return program

    def pings(self, address: str, *options: str) -> bool:
        """Tell whether an address answers, within 3 s."""
        return self.run("ping", "-n", "-q", "-c", "1", "-W", "3", *options, address, check=False).returncode == 0

    def reaches(self, address: str, port: int) -> bool:
        """Tell whether a server listens there."""
        call = f"import socket; socket.create_connection(({address!r}, {port}), 1)"
        return self.run(sys.executable, "-S", "-E", "-c", call, check=False).returncode == 0

    def refuses(self, address: str, size: int) -> bool:
        """Tell whether a packet of so many bytes, to be sent whole, is refused at once as too long."""
        said = self.run("ping", "-n", "-c", "1", "-W", "0.2", "-M", "do", "-s", str(size), address, check=False)
        return said.returncode == 1 and "message too long" in said.stderr

    def links(self) -> dict[str, dict[str, Any]]:
        """Return its interfaces as iproute2 has them."""
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-json", "-details", "address", "show").stdout)}

    def end(self) -> None:
        """End all programs in it, and so itself."""
        for program in self._programs:
            program.kill()
            program.communicate()
        self._holder.kill()
        self._holder.wait()


class Host(Namespace):
    """A machine with an Open vSwitch of its own, which runs the overlay."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.node = f"h{number}"
        self.address = ADDRESSES[number - 1]
        self.directory = directory / self.node
        self.directory.mkdir(parents=True)
        self.pods: list[Pod] = []
        super().__init__(
            self.node,
            {
                "OVS_RUNDIR": str(self.directory),
                "OVERLAY_RUN": str(self.directory / "run"),
                "OVERLAY_CNI_CONFIGURATION": str(self.directory / "cni"),
                "OVERLAY_CNI_LEASES": str(self.directory / "leases"),
                "DATAPATH": "netdev",
            },
        )
        self.start_switch()

    def start_switch(self) -> None:
        """Start Open vSwitch, on its database of before if there is one."""
        database, socket = self.directory / "conf.db", self.directory / "db.sock"
        if not database.exists():
            self.run("ovsdb-tool", "create", str(database), str(SCHEMA))
        socket.unlink(missing_ok=True)
        control = (f"--unixctl={self.directory}/ovsdb.ctl", "-vconsole:off", f"--log-file={self.directory}/ovsdb.log")
        self.database = self.start("ovsdb-server", str(database), f"--remote=punix:{socket}", *control)
        wait_for(socket.exists, "ovsdb-server")
        self.run("ovs-vsctl", "--no-wait", "init")
        control = (f"--unixctl={self.directory}/vswitchd.ctl", "-vconsole:off", f"--log-file={self.directory}/vswitchd.log")
        self.switch = self.start("ovs-vswitchd", f"unix:{socket}", *control)

    def overlay(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the overlay's script."""
        return self.run(*self.overlay_command(*arguments), check=check, environment=environment)

    def overlay_command(self, *arguments: str) -> list[str]:
        """Return the command line of the overlay's script on this host."""
        command, *options = arguments
        who = () if command == "down" else ("--nodes", str(self.directory.parent / "nodes.ini"), "--node", self.node)
        return [str(OVERLAY), command, *who, *options]

    def status(self) -> dict[str, Any]:
        """Return what `overlay status` says."""
        said: dict[str, Any] = json.loads(self.overlay("status", "--json", check=False).stdout)
        return said

    def pod(self, name: str) -> Pod:
        """Start a pod: a namespace that the CNI plug-ins connect, as a container run-time has them do."""
        pod = Pod(name, self)
        self.pods.append(pod)
        return pod

    def vsctl(self, *arguments: str) -> str:
        """Ask its Open vSwitch."""
        return self.run("ovs-vsctl", "--timeout=10", *arguments).stdout.strip()

    def end(self) -> None:
        for pod in self.pods:
            pod.end()
        super().end()


class Pod(Namespace):
    """A pod of a host."""

    def __init__(self, name: str, host: Host) -> None:
        super().__init__(name)
        self.host = host
        try:
            result = self._cni("ADD")
        except BaseException:
            self.end()
            raise
        self.address: str = result["ips"][0]["address"].partition("/")[0]

    def _cni(self, verb: str) -> dict[str, Any]:
        configuration = json.loads((self.host.directory / "cni" / "10-isotherm.conflist").read_text())
        common = {"cniVersion": configuration["cniVersion"], "name": configuration["name"]}
        result: dict[str, Any] = {}
        for plugin in configuration["plugins"]:
            given = {**common, **plugin, **({"prevResult": result} if result else {})}
            done = self.host.run(
                str(CNI / plugin["type"]),
                given=json.dumps(given),
                environment={
                    "CNI_COMMAND": verb,
                    "CNI_CONTAINERID": f"{self.name}-{self.host.node}",
                    "CNI_NETNS": self.path,
                    "CNI_IFNAME": "eth0",
                    "CNI_PATH": str(CNI),
                },
            )
            result = json.loads(done.stdout or "{}")
        return result


class Lab:
    """All of it; nothing of it is left on exit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spaces: list[Namespace] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def write_nodes(self, *numbers: int, **settings: str) -> None:
        """Write the node list with these hosts; settings are of its section overlay."""
        lines = ["[overlay]", "underlay = 192.168.56.0/24", *(f"{name} = {value}" for name, value in settings.items())]
        for number in numbers:
            lines += [f"[node h{number}]", f"number = {number}", f"address = {ADDRESSES[number - 1]}"]
            lines += [f"outside = {OUTSIDE}"] if number == 1 else []
        (self.directory / "nodes.ini").write_text("\n".join(lines) + "\n")

    def up(self, *hosts: Host) -> None:
        """Bring the overlay up on these hosts, by default on all, and wait until all tunnels are alive."""
        chosen = hosts or tuple(self.hosts)
        programs = [host.start(*host.overlay_command("up")) for host in chosen]
        for host, program in zip(chosen, programs, strict=True):
            said, _ = program.communicate(timeout=SECONDS)
            assert program.returncode == 0, f"{host.name}: {said}"
        self.wait_until_alive()

    def clean(self, host: Host) -> None:
        """Take a host's overlay away, and its pods."""
        for pod in host.pods:
            pod.end()
        host.pods.clear()
        host.overlay("down")
        wait_for(lambda: set(host.links()) <= {"lo", "eth0", "eth1", "ovs-netdev"}, "interfaces to be gone")

    def wait_until_alive(self) -> None:
        """Wait until BFD says of each tunnel on each host that is up that it is alive."""
        wait_for(
            lambda: all(set(states.values()) <= {"up"} for states in map(self.tunnels, self.hosts)), "tunnels to be alive"
        )

    def tunnels(self, host: Host) -> dict[str, str]:
        """Return what BFD says of a host's tunnels."""
        rows = json.loads(host.vsctl("--format=json", "--columns=name,type,bfd_status", "list", "interface"))["data"]
        return {name: dict(status[1]).get("state", "") for name, kind, status in rows if kind == "vxlan"}

    def pids(self) -> list[int]:
        """Return all processes of it."""
        spaces = [*self.spaces, *(pod for host in self.hosts for pod in host.pods)]
        return [pid for space in spaces for pid in space.pids]

    def end(self) -> None:
        """End everything."""
        for space in reversed(self.spaces):
            space.end()

    def _build(self) -> None:
        self.underlay = self._add(Namespace("underlay"))
        self.underlay.run("ip", "link", "add", "switch", "type", "bridge")
        self.underlay.run("ip", "link", "set", "switch", "up")
        self.outside = self._add(Namespace("outside"))
        self.hosts: list[Host] = []
        for number, address in enumerate(ADDRESSES, start=1):
            host = self._add(Host(number, self.directory))
            self.hosts.append(host)
            join(host, "eth0", self.underlay, host.node)
            self.underlay.run("ip", "link", "set", host.node, "master", "switch")
            host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        join(self.hosts[0], "eth1", self.outside, "eth0")
        self.hosts[0].run("ip", "address", "add", OUTSIDE, "dev", "eth1")
        self.outside.run("ip", "address", "add", f"{CLIENT}/24", "dev", "eth0")
        self.outside.run("ip", "route", "add", "10.244.0.0/16", "via", OUTSIDE.partition("/")[0])
        self.write_nodes(1, 2, 3)

    def _add(self, space: Space) -> Space:
        self.spaces.append(space)
        return space


def join(one: Namespace, interface: str, other: Namespace, name: str) -> None:
    """Lay a cable between two namespaces."""
    one.run("ip", "link", "add", interface, "type", "veth", "peer", "name", name, "netns", str(other.pids[0]))
    one.run("ip", "link", "set", interface, "up")
    other.run("ip", "link", "set", name, "up")


def wait_for(condition: Any, what: str, seconds: float = SECONDS) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it is not, after that time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(POLL_SECONDS)


MORTAL: Sequence[str] = ("setpriv", "--pdeathsig", "KILL", "--")
"""Has a program end with the thread that has started it."""


def main() -> None:
    """Bring it up with a pod on each host, say so, and wait for the end."""
    with Lab(Path(sys.argv[1])) as lab:
        lab.up()
        for host in lab.hosts:
            host.pod("pod")
        spaces = [*lab.spaces, *(pod for host in lab.hosts for pod in host.pods)]
        print(json.dumps({"pids": lab.pids(), "namespaces": [space.inode for space in spaces]}), flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
