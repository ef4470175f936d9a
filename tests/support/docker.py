"""Docker's engine and its compose, built of their modules by ``make compose-lab``, in namespaces of their own.

The engine is the first process of a process namespace, beside a network and a mount namespace: bridge, firewall and
published ports are not the machine's, and all of it is gone with the engine, which is gone with us, however we end. What
stays then is a folder, which the next run takes away.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import images
from tests.support.overlay_lab import MORTAL

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / ".compose-lab"
PROGRAMS = ("dockerd", "docker-proxy", "docker-compose")
FURTHER = ("containerd", "containerd-shim-runc-v2", "runc", "iptables", "unshare", "nsenter", "curl", "mosquitto_pub")
"""Programs of Debian's."""

START_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 600.0
POLL_SECONDS = 0.2
LOG_LINES = 10


def available() -> str | None:
    """Say why there is no engine, or None when there is one."""
    if os.geteuid() != 0:
        return "Docker's engine runs as root only"
    if not all((BUILT / name).exists() for name in PROGRAMS):
        return "Docker's engine is not built, which takes some five minutes of CPU: make compose-lab"
    absent = [name for name in FURTHER if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed: tests/prepare.sh, and apt-get install containerd"
    return images.available()


_PATH = f"{BUILT}:{os.environ['PATH']}:/usr/sbin:/sbin"


class Engine:
    """One that runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "docker.sock"
        self._log = folder / "log"
        self.environment = {**os.environ, "PATH": _PATH, "DOCKER_HOST": f"unix://{self._socket}"}
        self.start()

    def start(self) -> None:
        """Start it, on what it has kept if there is something."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *MORTAL, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                    "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
                    "dockerd", f"--host=unix://{self._socket}", f"--data-root={self._folder / 'data'}",
                    f"--exec-root={self._folder / 'exec'}", f"--pidfile={self._folder / 'pid'}",
                    "--default-ulimit=nofile=4096:4096",  # a machine may not have the right to more
                    "--feature=time-namespaces=false",  # which Debian's runc does not know
                ],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.until(self._answers, "the engine answers", seconds=START_SECONDS)

    def cut_power(self) -> None:
        """End it and all containers at once, with what a machine forgets."""
        os.kill(self._child, signal.SIGKILL)
        self._process.wait()
        for left in ("pid", "docker.sock"):
            (self._folder / left).unlink(missing_ok=True)
        shutil.rmtree(self._folder / "exec")

    def stop(self) -> None:
        """End it and all containers."""
        if self._process.poll() is None:
            os.kill(self._child, signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def _child(self) -> int:
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def within(self, *command: str) -> list[str]:
        """Return what runs a program where the ports are published."""
        return ["nsenter", f"--net=/proc/{self._child}/ns/net", "--", *command]

    def load(self, *names: str) -> None:
        """Copy images from podman."""
        saving = subprocess.Popen(
            [images.PODMAN, "save", "--multi-image-archive", *names],
            env=os.environ | images.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with saving:
            loaded = subprocess.run(
                ["curl", "--silent", "--unix-socket", str(self._socket), "--upload-file", "-", "--request", "POST", "http://docker/images/load"],
                stdin=saving.stdout, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True,
            )  # fmt: skip
        assert saving.returncode == 0 and loaded.stdout.count("Loaded image") == len(names), loaded.stdout

    def until(self, holds: Callable[[], Any], what: str, *, seconds: float) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
            time.sleep(POLL_SECONDS)

    def said(self) -> str:
        """Return the end of its log."""
        return "\n".join(self._log.read_text().splitlines()[-LOG_LINES:])

    def _answers(self) -> bool:
        ping = ["curl", "--silent", "--fail", "--unix-socket", str(self._socket), "http://docker/_ping"]
        return subprocess.run(ping, capture_output=True, check=False, timeout=START_SECONDS).returncode == 0


class Compose:
    """What is described by a compose file."""

    def __init__(self, engine: Engine, file: Path, **environment: str) -> None:
        self.engine = engine
        self.file = file
        self.environment = engine.environment | environment

    def run(self, *arguments: str) -> str:
        """Run a command of compose, and return what it prints; raises AssertionError with what it says when it fails."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """Return what each service has said at last."""
        return self.attempt("logs", "--tail", str(LOG_LINES)).stdout

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of compose that may fail."""
        return subprocess.run(
            ["docker-compose", "--file", str(self.file), "--progress", "plain", *arguments],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip

    def states(self) -> dict[str, str]:
        """Return how each service is: its health, or its state if nobody asks for that."""
        lines = self.run("ps", "--all", "--format", "json").splitlines()
        return {one["Service"]: one["Health"] or f"{one['State']} {one['ExitCode']}" for one in map(json.loads, lines)}


@contextmanager
def running() -> Iterator[Engine]:
    """An engine that knows nothing, for the length of the block; one at a time."""
    folder = BUILT / "engine"
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        engine = Engine(folder)
        try:
            yield engine
        finally:
            engine.stop()
            shutil.rmtree(folder)
