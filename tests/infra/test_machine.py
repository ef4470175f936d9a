"""The machine that the node of ``make k8s-lab`` is: it goes with who started it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support import machine

pytestmark = pytest.mark.servers

END_SECONDS = 20.0
STARTED = """\
import subprocess, sys
from tests.support import machine

with machine.started() as one:
    busy = subprocess.Popen(one.command("sleep", "infinity"))
    print(one.pid, one.folder, one.name, flush=True)
    busy.wait()
"""


@pytest.fixture(autouse=True)
def _possible() -> None:
    if os.geteuid() != 0 or any(shutil.which(one) is None for one in machine.PROGRAMS):
        missing(f"a machine needs root and {', '.join(machine.PROGRAMS)}; see tests/prepare.sh")


def links() -> str:
    return subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout


def test_it_has_a_network_of_its_own_and_is_reached() -> None:
    with machine.started() as one:
        assert one.address in one.run("ip", "-oneline", "address")
        subprocess.run(["ping", "-q", "-c", "1", "-W", "5", one.address], check=True, capture_output=True)
        assert f"node{os.getpid()}" in links()
    assert f"node{os.getpid()}" not in links()
    assert not one.folder.exists()
    assert not Path("/proc", str(one.pid)).exists()


def test_nothing_of_it_runs_on_when_we_are_killed_and_the_next_sweeps_up() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTED], stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        pid, folder, name = user.stdout.readline().split()
        user.kill()
    deadline = time.monotonic() + END_SECONDS
    while Path("/proc", pid).exists() or f"node{user.pid}" in links():
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)
    assert Path(folder).exists()
    with machine.started():
        assert not Path(folder).exists()
        assert not [one for one in machine.HIERARCHIES if (one / name).exists()]
