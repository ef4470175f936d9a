"""What podman has of a host, and podmans that wait or fail on the way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from isotherm.hosts.apart import PREFERENCE
from isotherm.hosts.podman import PREFIX
from tests.support import images

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
POOL = f"10.91.{16 * (_WORKER % 16)}.0/20"
"""Of the networks of hosts that this process tests."""

_LISTS = {
    "container": ("ps", "--all", "--format={{.Names}}"),
    "volume": ("volume", "ls", "--format={{.Name}}"),
    "network": ("network", "ls", "--format={{.Name}}"),
}


def parts_of(name: str) -> list[str]:
    """Return which parts of a host there are."""
    return [kind for kind, listing in _LISTS.items() if PREFIX + name in images.podman(*listing).splitlines()]


def remove(name: str) -> None:
    """Remove what there is of a host; without the store, which an interrupted run may have lost already."""
    for kind in parts_of(name):
        images.podman(kind, "rm", *(("--force", "--time=0") if kind == "container" else ()), PREFIX + name)


def podman_that(folder: Path, step: str, does: str) -> str:
    """Make a podman that does something else before a step, such as ``container start``; returns its path."""
    program = folder / "podman"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in cp) asked=cp;; *) asked="$1 $2";; esac\n'
        f'if [ "$asked" = "{step}" ]; then {does}; fi\n'
        f'exec {images.PODMAN} "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


class PodmanThatWaits:
    """A podman that waits before a step until it may go on."""

    def __init__(self, folder: Path, step: str) -> None:
        self._come, self._go = folder / "come", folder / "go"
        os.mkfifo(self._come)
        os.mkfifo(self._go)
        self.path = podman_that(folder, step, f"echo come >{self._come}; read -r go <{self._go}")

    def until_it_waits(self) -> None:
        """Return when it has come to the step."""
        self._come.read_text()

    def go_on(self) -> None:
        """Let it do the step."""
        self._go.write_text("go\n")


def forget_rules() -> None:
    """Take away the rules that keep hosts of POOL apart."""
    for preference in (PREFERENCE, PREFERENCE + 1):
        rule = ("ip", "-4", "rule", "del", "preference", str(preference), "to", POOL)
        subprocess.run(
            rule, env=os.environ | {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}, stderr=subprocess.DEVNULL, check=False
        )
