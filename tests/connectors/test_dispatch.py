"""Commands that wait for devices which come and go: the order of things that no protocol can force."""

from __future__ import annotations

import asyncio

import pytest

from isotherm.commands import Command, Control
from isotherm.configuration import Configurations
from isotherm.errors import Unavailable
from isotherm.store.client import Client
from tests.contracts.commands import configured, dispatching

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]


class Outlet:
    """A way that always succeeds."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Command] = asyncio.Queue()

    async def give(self, command: Command) -> str:
        self.given.put_nowait(command)
        return "sent"


class Slow(Configurations):
    """Answers that nothing waits only when it is let; may be away first."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.is_asked, self.may_answer, self.is_away = asyncio.Event(), asyncio.Event(), False

    async def claim(self, device: str, via: str, *, is_new: bool = False) -> Command | None:
        if self.is_away:
            self.is_away = False
            raise Unavailable("the store is away")
        command = await super().claim(device, via, is_new=is_new)
        if command is None:
            self.is_asked.set()
            await self.may_answer.wait()
        return command


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.intake.CountedConfigurations", Slow)
    monkeypatch.setattr("connectors.dispatch.RETRY_SECONDS", 0.05)


@pytest.mark.usefixtures("slow")
async def test_a_device_that_comes_while_the_store_is_asked_is_given_its_configuration_again(redis: Client) -> None:
    before, after = Outlet(), Outlet()
    async with dispatching(redis) as bench:
        slow = bench.configurations
        assert isinstance(slow, Slow)
        await slow.change("lamp", {"interval": 5}, "eve")
        with bench.dispatcher.reaching("lamp", before):  # type: ignore[arg-type]
            assert (await before.given.get()).id == "configuration-1"
            await configured(slow, "lamp", "sent")
            await slow.is_asked.wait()  # whether anything else waits
            with bench.dispatcher.reaching("lamp", after):  # type: ignore[arg-type]
                slow.may_answer.set()
                async with asyncio.timeout(10):
                    assert (await after.given.get()).id == "configuration-1"


@pytest.mark.usefixtures("slow")
async def test_a_device_that_comes_while_the_store_is_away_is_given_its_configuration_again(redis: Client) -> None:
    before, after = Outlet(), Outlet()
    async with dispatching(redis) as bench:
        slow = bench.configurations
        assert isinstance(slow, Slow)
        slow.may_answer.set()
        await slow.change("lamp", {"interval": 5}, "eve")
        with bench.dispatcher.reaching("lamp", before):  # type: ignore[arg-type]
            await before.given.get()
            await configured(slow, "lamp", "sent")
            await slow.is_asked.wait()
        slow.is_away = True
        with bench.dispatcher.reaching("lamp", after):  # type: ignore[arg-type]
            async with asyncio.timeout(10):
                assert (await after.given.get()).id == "configuration-1"
        assert not slow.is_away


async def test_a_device_that_comes_while_its_command_is_taken_up_is_told_by_the_way_that_it_came(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = Outlet(), Outlet()
    async with dispatching(redis) as bench:
        claim, comes = Control.claim, [True]

        async def slow(control: Control, device: str, via: str) -> Command | None:
            found = await claim(control, device, via)
            if comes and bench.dispatcher._outlets:
                comes.clear()
                bench.dispatcher.enter("lamp", after)  # type: ignore[arg-type]
            return found

        monkeypatch.setattr(Control, "claim", slow)
        await bench.configurations.change("lamp", {"interval": 5}, "eve")
        with bench.dispatcher.reaching("lamp", before):  # type: ignore[arg-type]
            async with asyncio.timeout(10):
                assert (await after.given.get()).id == "configuration-1"
            assert before.given.empty()
