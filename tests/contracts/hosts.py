"""What whatever runs virtual hosts promises. A test class inherits this and says what runs them, and what is left of one."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import msgspec
import pytest

from isotherm.hosts import Backend, HostTaken, NoSuchHost, Spec
from isotherm.hosts.host import GIB, MIB

ADA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0e7fAfjgJ4JlLoAno93Tb6U8Bzdv7QJCb4QXTmc+6l ada@laptop"
BOB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL495llf6eRYOKRHzN70haYKhSo7paCljTWoTSMbSLem bob@desk"


class HostsContract(ABC):
    """Inherited by the tests of each backend; they give the fixture ``backend``."""

    @abstractmethod
    async def left_of(self, name: str) -> list[str]:
        """Return what there is that belongs to a host, asked of what runs it and not of the backend."""

    @pytest.fixture
    async def spec(self, backend: Backend) -> AsyncIterator[Spec]:
        """What a test asks for; afterwards nothing of it is there."""
        spec = Spec(
            name=f"t{uuid.uuid4().hex[:8]}", user="zoë@example.org", cpus=0.5, memory=512 * MIB, disk=GIB, keys=(ADA,)
        )
        yield spec
        if await backend.find(spec.name) is not None:
            await backend.delete(spec.name)

    async def test_a_host_is_found_with_what_was_asked_for(self, backend: Backend, spec: Spec) -> None:
        assert await backend.find(spec.name) is None
        assert await backend.create(spec) is False
        found = await backend.find(spec.name)
        assert found is not None
        assert (found.name, found.user, found.cpus, found.memory, found.disk) == (
            spec.name,
            spec.user,
            spec.cpus,
            spec.memory,
            spec.disk,
        )
        assert found.state in ("starting", "running")
        assert found.address
        assert found.created > 0
        assert found.name in {one.name for one in await backend.all()}
        assert (await backend.keys(spec.name)).splitlines() == [ADA]

    async def test_a_name_that_is_taken_is_refused_and_its_host_stays_as_it_is(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        before = await self.left_of(spec.name)
        with pytest.raises(HostTaken, match=f"there is a host {spec.name} already"):
            await backend.create(msgspec.structs.replace(spec, keys=(BOB,)))
        assert await self.left_of(spec.name) == before
        assert (await backend.keys(spec.name)).splitlines() == [ADA]

    async def test_of_two_who_create_one_at_once_one_does(self, backend: Backend, spec: Spec) -> None:
        done = await asyncio.gather(*(backend.create(spec) for _ in range(2)), return_exceptions=True)
        assert sorted(map(str, map(type, done))) == sorted(map(str, (bool, HostTaken))), done
        assert await backend.find(spec.name) is not None
        assert (await backend.keys(spec.name)).splitlines() == [ADA]

    async def test_keys_are_replaced(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        await backend.set_keys(spec.name, [BOB, ADA])
        assert (await backend.keys(spec.name)).splitlines() == [BOB, ADA]

    async def test_nothing_is_left_of_a_host_that_is_deleted(self, backend: Backend, spec: Spec) -> None:
        await backend.create(spec)
        await backend.delete(spec.name)
        assert await self.left_of(spec.name) == []
        assert await backend.find(spec.name) is None

    async def test_a_volume_that_was_kept_is_the_next_ones_of_its_user_and_nobody_elses(
        self, backend: Backend, spec: Spec
    ) -> None:
        await backend.create(spec)
        await backend.delete(spec.name, keep_volume=True)
        found = await backend.find(spec.name)
        assert found is not None
        assert (found.state, found.address) == ("kept", "")
        with pytest.raises(NoSuchHost, match="its volume is kept already"):
            await backend.delete(spec.name, keep_volume=True)
        with pytest.raises(HostTaken, match=r"zoë@example\.org has kept the volume"):
            await backend.create(msgspec.structs.replace(spec, user="bob"))
        assert await backend.create(spec) is True
        await backend.delete(spec.name, keep_volume=True)
        await backend.delete(spec.name)
        assert await self.left_of(spec.name) == []

    async def test_what_is_not_there_is_said_so(self, backend: Backend, spec: Spec) -> None:
        with pytest.raises(NoSuchHost):
            await backend.delete(spec.name)
        with pytest.raises(NoSuchHost):
            await backend.keys(spec.name)
        with pytest.raises(NoSuchHost):
            await backend.set_keys(spec.name, [ADA])
        assert await backend.host_key(spec.name) == ""
