"""`make vm-lab`: the provisioning's overlay part on three machines of QEMU, with the kernel's datapath.

The machines boot a small Debian that image.sh makes once. Their interfaces are multicast sockets of this host's loopback, so
nothing of the host's own network is touched. They end with this program, however it ends.

    underlay  ── cp1 192.168.56.11 ── w1 192.168.56.21 ── w2 192.168.56.22
    outside   ── cp1 192.168.57.11 ─────────────────────── a client on w2, 192.168.57.1

What each does is guest.sh; this starts them, pulls the plug of w1 when it is asked to, adds up what they say on their
consoles, and compares what was sent with what has come. By default the processor is emulated, which works anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
IMAGE = ROOT / ".vm-lab" / "image"
CONTENT = ("infra/ovs", "infra/vagrant", "tests/support/overlay_peers.py")

MEMORY_MIB = 512
LIMIT_SECONDS = 1800.0
"""Where there is no hardware support a machine boots in minutes."""

NODES = ("cp1", "w1", "w2")
OUTSIDE = ("cp1", "w2")
NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "debootstrap": "debootstrap",
    "setpriv": "util-linux",
}


@dataclass(frozen=True)
class Lab:
    """What the machines have in common.

    Attributes:
        directory: For their disks.
        content: The tar file that each finds on its second disk.
        port: Of the multicast that is the underlay; the next one is the outside.
        accelerator: tcg emulates a processor, kvm lends the host's.
        said: What they say: who, and what.
    """

    directory: Path
    content: Path
    port: int
    accelerator: str
    said: queue.Queue[tuple[str, str]] = field(default_factory=queue.Queue)


class Machine:
    """One of the three."""

    def __init__(self, name: str, number: int, lab: Lab) -> None:
        disk = lab.directory / f"{name}.qcow2"
        backing = ("-F", "raw", "-b", str(IMAGE / "base.img"))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk)], check=True)
        networks = [("underlay", lab.port), *([("outside", lab.port + 1)] if name in OUTSIDE else [])]
        self.name = name
        self._said = lab.said
        kernel = f"root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet lab.node={name}"
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-accel", lab.accelerator),
            *("-m", str(MEMORY_MIB), "-smp", "1", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(IMAGE / "vmlinuz"), "-initrd", str(IMAGE / "initrd"), "-append", kernel),
            *(
                "-drive",
                f"file={disk},if=virtio,cache=unsafe",
                "-drive",
                f"file={lab.content},if=virtio,format=raw,readonly=on",
            ),
            *("-device", "virtio-rng-pci"),
        ]
        for index, (network, at) in enumerate(networks):
            command += ["-netdev", f"socket,id={network},mcast=230.0.0.1:{at},localaddr=127.0.0.1"]
            command += ["-device", f"virtio-net-pci,netdev={network},mac=52:54:00:00:{index:02x}:{number:02x}"]
        self._command = command
        self._console = IMAGE.parent / f"{name}.log"
        self._console.write_bytes(b"")
        self.start()

    def start(self) -> None:
        """Switch it on."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def pull_the_plug(self) -> None:
        """Switch it off without a word."""
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def last_lines(self) -> str:
        """Return the end of what was on its console."""
        return self._console.read_text(errors="replace")[-1500:]

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with self._console.open("a") as console:
            for line in process.stdout:
                console.write(line)
                console.flush()
                _, found, what = line.strip().partition("LAB ")
                if found:
                    self._said.put((self.name, what))
        if process.wait() >= 0:  # else we have killed it
            self._said.put((self.name, "FAILED: it has ended"))


def main() -> int:
    """Run it; returns the exit code."""
    # Whoever ends us lets us switch the machines off and throw their disks away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description="The overlay on three machines of QEMU.")
    parser.add_argument("--new-image", action="store_true", help="make the machines' disk anew")
    parser.add_argument("--accel", default="tcg", choices=("tcg", "kvm"), help="kvm is faster, where it works")
    options = parser.parse_args()
    path = os.environ["PATH"] + ":/usr/sbin"
    if absent := [package for program, package in NEEDED.items() if not shutil.which(program, path=path)]:
        print(f"vm-lab: missing: apt-get install {' '.join(absent)}", file=sys.stderr)
        return 2
    if options.new_image or not (IMAGE / "base.img").exists():
        print("making the disk of the machines, some two minutes …", flush=True)
        subprocess.run([HERE / "image.sh", IMAGE], check=True)
    with tempfile.TemporaryDirectory(prefix="vm-lab-") as scratch:
        return _run(Path(scratch), options.accel)


def _run(directory: Path, accelerator: str) -> int:
    content = directory / "content.tar"
    with tarfile.open(content, "w") as tar:
        for path in CONTENT:
            tar.add(ROOT / path, path, filter=lambda one: None if "/secrets" in one.name or "/.vagrant" in one.name else one)
    began = time.monotonic()
    lab = Lab(directory, content, 20_000 + os.getpid() % 20_000 * 2, accelerator)
    machines = {name: Machine(name, number, lab) for number, name in enumerate(NODES, start=1)}
    try:
        faults, passed = _follow(machines, lab.said, began)
    finally:
        for machine in machines.values():
            machine.pull_the_plug()
    print(f"{passed} steps passed, {faults} failed, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if faults or not passed else 0


def _follow(machines: dict[str, Machine], said: queue.Queue[tuple[str, str]], began: float) -> tuple[int, int]:
    """Show what the machines say until all is tried; returns how many steps have failed and passed."""
    faults = passed = 0
    sums: dict[str, set[str]] = {"sent": set(), "got": set()}
    waiting = {"done", "client done"}
    while waiting:
        try:
            name, what = said.get(timeout=max(0.0, began + LIMIT_SECONDS - time.monotonic()))
        except queue.Empty:
            name, what = "vm-lab", f"FAILED: {' and '.join(waiting)} has not come within {LIMIT_SECONDS:.0f} s"
            waiting.clear()
        print(f"{time.monotonic() - began:6.1f} s  {name:<4} {what}", flush=True)
        passed += what.startswith("ok ")
        kind, _, rest = what.partition(" ")
        if what.startswith("FAILED"):
            faults += 1
            if name in machines:
                print(machines[name].last_lines(), flush=True)
        elif kind in sums:
            sums[kind].add(json.loads(rest)["sha256"])
        elif kind == "cut":
            machines[rest].pull_the_plug()
            machines[rest].start()
        waiting.discard(what)
        if what == "FAILED: it has ended":
            break
    if not sums["sent"] or not sums["sent"] <= sums["got"]:
        print("FAILED: what was sent over TCP is not what has come", flush=True)
        faults += 1
    return faults, passed


if __name__ == "__main__":
    sys.exit(main())
