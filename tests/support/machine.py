"""A machine of its own within this one: a set of namespaces.

Whatever is started, mounted, or set up in the network there goes with its first process, and that goes with us, however we
end. What stays then is a folder and control groups: they are removed at the end, or else by the next who starts one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else list(CGROUPS.iterdir())
PREFIX = "isotherm-machine-"
NAMESPACES = ("--pid", "--mount", "--net", "--uts", "--ipc")
PROGRAMS = ("setpriv", "unshare", "nsenter", "catatonit", "ip")
PREFIX_BITS = 28
NETWORKS = list(IPv4Network("198.18.0.0/15").subnets(new_prefix=PREFIX_BITS))
"""Of the addresses for such trials (RFC 2544)."""
COMMAND_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Machine:
    """One that runs.

    Attributes:
        name: Also that of its control groups.
        pid: Of its first process, as it is seen from here.
        folder: Its own, seen from both sides.
        address: At which it is reached from here.
        further: More of these, for what runs on it.
    """

    name: str
    pid: int
    folder: Path
    address: str
    further: tuple[str, ...]

    def command(self, *words: str | Path) -> list[str]:
        """Return what runs a command there."""
        return ["nsenter", f"--target={self.pid}", *NAMESPACES, "--", *map(str, words)]

    def run(self, *words: str | Path) -> str:
        """Run a command there; raises AssertionError with what it says when it fails."""
        return run(*self.command(*words))


@contextmanager
def started() -> Iterator[Machine]:
    """A machine for the length of the block, on a cable from here."""
    ours, its, *further = addresses(NETWORKS)
    with furnished() as folder, powered(folder, its, further) as machine, cable(machine) as link:
        run("ip", "address", "add", f"{ours}/{PREFIX_BITS}", "dev", link)
        connect(machine, ours)
        yield machine


def addresses(networks: Sequence[IPv4Network]) -> list[str]:
    """Return those of one of these networks, which no other process takes at the same time."""
    return [str(one) for one in networks[os.getpid() % len(networks)].hosts()]


@contextmanager
def furnished(number: int = 0) -> Iterator[Path]:
    """The folder of a machine, its disk: it is there also while the machine has no power. We tell ours by number."""
    _remove_leftovers()
    name = f"{PREFIX}{os.getpid()}-{number}"
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        yield folder
    finally:
        _remove(name)


@contextmanager
def powered(folder: Path, address: str, further: Sequence[str] = ()) -> Iterator[Machine]:
    """A machine that runs for the length of the block, or until its first process is killed; nobody is connected to it."""
    name = _name(folder)
    # When we end, unshare is killed; then its child; then, because that is the first process there, all others.
    command = [
        "setpriv",
        "--pdeathsig=KILL",
        "unshare",
        "--fork",
        "--kill-child",
        "--mount-proc",
        *NAMESPACES,
        "catatonit",
        "-P",
    ]
    with (folder / "unshare.log").open("wb") as log:
        unshare = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        machine = Machine(name, _first_process(unshare), folder, address, tuple(further))
        machine.run("ip", "link", "set", "lo", "up")
        _make_cgroups(name)
        yield machine
    finally:
        if pids := _children(unshare):
            os.kill(pids[0], signal.SIGKILL)
        unshare.wait()  # which waits until all have ended
        _remove_cgroups(name)


@contextmanager
def cable(machine: Machine) -> Iterator[str]:
    """A cable from here to a machine's ``eth0``; yields what it is called here. It goes with the machine, if not before."""
    link = f"node{os.getpid()}"
    run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
    run("ip", "link", "set", link, "up")
    try:
        yield link
    finally:  # the kernel would do it, but in its own time
        subprocess.run(["ip", "link", "delete", link], capture_output=True, timeout=COMMAND_SECONDS, check=False)


def connect(machine: Machine, gateway: str) -> None:
    """Give a machine's ``eth0`` its addresses."""
    for address in (machine.address, *machine.further):
        machine.run("ip", "address", "add", f"{address}/{PREFIX_BITS}", "dev", "eth0")
    machine.run("ip", "link", "set", "eth0", "up")
    machine.run("ip", "route", "add", "default", "via", gateway)


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _first_process(unshare: subprocess.Popen[bytes]) -> int:
    while not (pids := _children(unshare)) or Path(f"/proc/{pids[0]}/comm").read_text() != "catatonit\n":
        assert unshare.poll() is None, f"unshare ended with {unshare.returncode}"
    return pids[0]


def _make_cgroups(name: str) -> None:
    for hierarchy in HIERARCHIES:
        (hierarchy / name).mkdir()
    for one in ("cpuset.cpus", "cpuset.mems"):
        if (CGROUPS / "cpuset" / one).exists():
            (CGROUPS / "cpuset" / name / one).write_text((CGROUPS / "cpuset" / one).read_text())


def _name(folder: Path) -> str:
    """Return that of a machine, by its folder or control group."""
    return PREFIX + "-".join(folder.name.removeprefix(PREFIX).split("-")[:2])


def _remove_leftovers() -> None:
    for place in (Path(tempfile.gettempdir()), *HIERARCHIES):
        for path in place.glob(f"{PREFIX}*"):
            pid = path.name.removeprefix(PREFIX).partition("-")[0]
            if not Path("/proc", pid).exists():
                _remove(_name(path))


def _remove(name: str) -> None:
    _remove_cgroups(name)
    for path in Path(tempfile.gettempdir()).glob(f"{name}-*"):
        shutil.rmtree(path)


def _remove_cgroups(name: str) -> None:
    for hierarchy in HIERARCHIES:
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            Path(folder).rmdir()


def run(*command: str) -> str:
    """Run a command here; raises AssertionError with what it says when it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
