"""The images for arm64: what is in them is for that processor, and does its work on an emulated one."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.infra.test_images import inspect, mounted, name
from tests.support import images, pod_images
from tests.support.ports import free_port
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

EMULATOR = shutil.which("qemu-aarch64-static")
AARCH64 = 183
"""EM_AARCH64, in /usr/include/elf.h."""

PARTS = ("connector", "worker")
START_SECONDS = 180.0
"""Under emulation everything takes some twenty times as long."""


@pytest.fixture(scope="module")
def arm64() -> str:
    """In whose name the images for that processor are in podman's store."""
    if "ISOTHERM_ARM64_LAB" not in os.environ:
        pytest.skip("it takes some minutes: make arm64-lab")
    if reason := images.available():
        pytest.fail(reason)
    if EMULATOR is None:
        pytest.fail("qemu-aarch64-static is not installed: apt-get install qemu-user-static")
    registry = f"{images.BASE.rpartition('/')[0]}/arm64"
    pod_images.build(*PARTS, registry=registry, ARCH="arm64")
    return registry


@pytest.mark.parametrize("part", PARTS)
def test_every_program_and_library_of_an_image_is_for_its_processor(arm64: str, part: str) -> None:
    assert inspect(arm64, part)["Architecture"] == "arm64"
    with mounted(arm64, part) as root:
        machines = {path.relative_to(root): machine for path in root.rglob("*") if (machine := machine_of(path))}
    assert len(machines) > 100
    assert {path for path, machine in machines.items() if machine != AARCH64} == set()


def machine_of(path: Path) -> int | None:
    """Return for which processor a file is, if it is an ELF file."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(20)
    return int(struct.unpack_from("<H", start, 18)[0]) if start.startswith(b"\x7fELF") else None


def test_a_connector_and_a_worker_take_readings_to_the_store(arm64: str, tmp_path: Path) -> None:
    listens, *health = free_port(), free_port(), free_port()
    with Stack(tmp_path / "stack", "--no-simulator") as stack:
        servers = {
            "ISOTHERM_KAFKA": f"127.0.0.1:{stack.ports.kafka}",
            "ISOTHERM_REDIS": f"redis://127.0.0.1:{stack.ports.redis}/0",
        }
        with (
            emulated(name(arm64, "worker"), health[0], "worker", **servers),
            emulated(name(arm64, "connector"), health[1], "connect", "tcp", ISOTHERM_TCP_PORT=str(listens), **servers),
        ):
            own = stack.pid_of("worker")
            os.kill(own, signal.SIGSTOP)  # what it had the other one gets
            try:
                devices = ("--register", "--devices", "2", "--for", "5")
                stack.run("simulate", "--target", f"127.0.0.1:{listens}", *devices, seconds=120)
                total = stack.ledger_when_settled(10, seconds=START_SECONDS)
            finally:
                os.kill(own, signal.SIGCONT)
    assert total["stored"] == total["received"] and total["lost"] == 0


@contextmanager
def emulated(image: str, health: int, *command: str, **settings: str) -> Iterator[None]:
    """Run a container until the end of the block; what it runs is interpreted."""
    container = f"isotherm-arm64-{os.getpid()}-{command[-1]}"
    variables = {"ISOTHERM_HOST": "127.0.0.1", "ISOTHERM_HEALTH_PORT": str(health), **settings}
    try:
        images.podman(
            "run", "--detach", "--name", container, "--platform", "linux/arm64", "--network", "host", "--read-only",
            "--volume", f"{EMULATOR}:/emulator:ro", "--entrypoint", "/emulator",
            *(f"--env={key}={value}" for key, value in variables.items()),
            image, "/usr/bin/python3", "-m", "isotherm", *command,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(health):
            assert time.monotonic() < deadline, images.podman("logs", container)
            time.sleep(0.5)
        yield
    finally:
        images.podman("rm", "--force", "--time", "0", "--ignore", container)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
