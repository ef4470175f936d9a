"""Virtual hosts as containers of this machine: what podman has of them, and that nothing is left."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from isotherm.hosts import Backend, HostsAway, HostsUnusable, Spec
from isotherm.hosts.podman import PREFIX, Podman
from tests.contracts.hosts import HostsContract
from tests.hosts.podman import POOL, PodmanThatWaits, parts_of, podman_that
from tests.support import images

pytestmark = pytest.mark.servers


@pytest.fixture
def backend(image: str) -> Backend:
    return Podman(image, POOL)


class TestPodman(HostsContract):
    async def left_of(self, name: str) -> list[str]:
        return await asyncio.to_thread(parts_of, name)

    async def test_a_host_is_held_to_what_was_asked_for(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        shown = await asyncio.to_thread(images.podman, "container", "inspect", PREFIX + spec.name)
        held = json.loads(shown)[0]["HostConfig"]
        assert held["Memory"] == held["MemorySwap"] == spec.memory
        assert held["NanoCpus"] == int(spec.cpus * 1e9)
        assert held["PidsLimit"] > 0
        assert not held["Privileged"]
        assert "CAP_SYS_ADMIN" not in json.loads(shown)[0]["EffectiveCaps"]

    @pytest.mark.parametrize("step", ["network create", "volume create", "container create", "cp", "container start"])
    async def test_wherever_it_is_interrupted_nothing_is_left(
        self, image: str, spec: Spec, step: str, tmp_path: Path
    ) -> None:
        program = PodmanThatWaits(tmp_path, step)
        creating = asyncio.create_task(Podman(image, POOL, program.path).create(spec))
        await asyncio.to_thread(program.until_it_waits)
        creating.cancel()
        await asyncio.to_thread(program.go_on)
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert await self.left_of(spec.name) == []

    @pytest.mark.parametrize("step", ["volume create", "cp", "container start"])
    async def test_whatever_fails_nothing_is_left(self, image: str, spec: Spec, step: str, tmp_path: Path) -> None:
        failing = Podman(image, POOL, podman_that(tmp_path, step, 'echo "Error: out of luck" >&2; exit 125'))
        with pytest.raises(HostsAway, match=f"podman {step} failed: out of luck"):
            await failing.create(spec)
        assert await self.left_of(spec.name) == []

    async def test_one_whose_creation_was_cut_off_is_shown_and_can_be_deleted(
        self, backend: Backend, spec: Spec, tmp_path: Path
    ) -> None:
        await backend.create(spec)
        await asyncio.to_thread(images.podman, "container", "rm", "--force", "--time=0", PREFIX + spec.name)
        found = await backend.find(spec.name)
        assert found is not None
        assert found.state == "incomplete"
        await backend.delete(spec.name)
        assert await self.left_of(spec.name) == []


async def test_an_image_that_is_missing_is_told_with_how_to_build_it(image: str) -> None:
    spec = Spec(name="t-none", user="ada", keys=("ssh-ed25519 AAAA",))
    with pytest.raises(HostsUnusable, match="podman has no image localhost/none:1: build it by `make host-image`"):
        await Podman("localhost/none:1", POOL).create(spec)
    assert parts_of(spec.name) == []


async def test_without_podman_it_is_said_what_to_install(image: str) -> None:
    with pytest.raises(HostsUnusable, match="there is no no-such-podman on the PATH"):
        await Podman(image, POOL, "no-such-podman").all()
