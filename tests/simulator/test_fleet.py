"""The simulated fleet: deterministic values, exact accounts, nothing lost while the server is away."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from simulator import fleet as module
from simulator.fleet import Plan, run
from simulator.publishers import Controlled, NotAcknowledged, Publisher, Reading, create
from simulator.room import Room


class Memory:
    """Publishes into a list, and fails as often as told."""

    def __init__(self, failures: int = 0, refuses: int = 0) -> None:
        self.readings: list[Reading] = []
        self.closed = False
        self._failures = failures
        self._refuses = refuses

    async def publish(self, readings: Sequence[Reading]) -> int:
        if self._failures:
            self._failures -= 1
            raise NotAcknowledged("away")
        self.readings += readings
        refused, self._refuses = self._refuses, 0
        return refused

    async def close(self) -> None:
        self.closed = True


async def fleet(plan: Plan, publishers: dict[str, Memory], rooms: int = 1) -> module.Account:
    def publisher_for(device: str, controlled: Controlled | None) -> Publisher:
        return publishers.setdefault(device, Memory())

    every = [Room.numbered(number, seed=7) for number in range(rooms)]
    return await run(every, plan, "memory", publisher_for, asyncio.Event())


def test_the_same_seed_and_time_give_the_same_temperature() -> None:
    times = [1_790_000_000 + i * 0.5 for i in range(100)]
    assert [Room.numbered(3, 1).temperature(t) for t in times] == [Room.numbered(3, 1).temperature(t) for t in times]
    assert [Room.numbered(3, 1).temperature(t) for t in times] != [Room.numbered(3, 2).temperature(t) for t in times]
    assert [Room.numbered(3, 1).temperature(t) for t in times] != [Room.numbered(4, 1).temperature(t) for t in times]


def test_rooms_are_as_warm_as_rooms_are() -> None:
    for number in range(20):
        room = Room.numbered(number, 1)
        day = [room.temperature(1_790_000_000 + minute * 60) for minute in range(1440)]
        assert 14 < min(day) < max(day) < 27
        assert max(day) - min(day) > 1  # a day has its cycle
        assert max(abs(a - b) for a, b in pairwise(day)) < 2


async def test_exactly_as_many_readings_are_sent_as_planned_with_exact_sums() -> None:
    publishers: dict[str, Memory] = {}
    account = await fleet(Plan(rate_hz=200, seconds=0.5, integers=True), publishers, rooms=3)
    assert (account.sent, account.acknowledged, account.dropped) == (300, 300, 0)
    assert account.value_sum == 3 * sum(range(100))
    for publisher in publishers.values():
        assert [reading.value for reading in publisher.readings] == list(range(100))
        assert publisher.closed
        times = [reading.time for reading in publisher.readings]
        assert times == sorted(times)


async def test_readings_are_kept_and_sent_again_until_they_are_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01,))
    publishers = {"room-001": Memory(failures=5)}
    account = await fleet(Plan(rate_hz=100, seconds=0.3, integers=True), publishers)
    assert account.acknowledged == account.sent == 30
    assert account.resent > 0
    assert account.errors == {"away": 5}
    assert [reading.value for reading in publishers["room-001"].readings] == list(range(30))


async def test_refused_readings_are_counted_and_not_sent_again() -> None:
    account = await fleet(Plan(rate_hz=100, seconds=0.1), {"room-001": Memory(refuses=1)})
    assert (account.sent, account.acknowledged, account.refused) == (10, 9, 1)


async def test_a_backlog_is_bounded_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BACKLOG", 10)
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.3,))
    publishers = {"room-001": Memory(failures=1)}
    account = await fleet(Plan(rate_hz=1000, seconds=0.4, integers=True), publishers)
    assert account.dropped > 0
    assert account.acknowledged + account.dropped == account.sent == 400


async def test_a_device_that_is_turned_away_has_its_readings_still() -> None:
    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"error":{"reason":"auth","detail":"this token is unknown","count":3}}\n')
        writer.close()

    async with await asyncio.start_server(turn_away, "127.0.0.1", 0) as server:
        publisher = create("tcp", "room-001", *server.sockets[0].getsockname(), token="wrong")
        with pytest.raises(NotAcknowledged, match="this token is unknown"):
            await publisher.publish([Reading("temperature", 1_790_000_000, 20.5, "Cel", 1)])
        await publisher.close()


async def test_a_token_is_in_no_account() -> None:
    publisher = create("coap", "room-001", "127.0.0.1", 1, token="hidden")
    with pytest.raises(NotAcknowledged, match=r"coap://127\.0\.0\.1:1/readings: ") as told:
        await publisher.publish([Reading("temperature", 1_790_000_000, 20.5, "Cel", 1)])
    assert "hidden" not in str(told.value)
    await publisher.close()


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ValueError, match="'smoke', expected tcp, http, mqtt or coap"):
        create("smoke", "d", "h", 1)


async def test_a_device_measures_as_often_as_it_is_configured_to() -> None:
    said: asyncio.Queue[object] = asyncio.Queue()
    memory = Memory()
    stop = asyncio.Event()

    def publisher_for(_: str, controlled: Controlled | None) -> Publisher:
        assert controlled is not None
        command = {"id": "configuration-1", "device": "room-001", "name": "configure"}
        asyncio.get_running_loop().call_later(
            0.3, controlled.obey, {**command, "parameters": {"version": 1, "values": {"interval": 0.05}}}, said.put_nowait
        )
        return memory

    running = asyncio.create_task(run([Room.numbered(0, seed=1)], Plan(1 / 3600), "memory", publisher_for, stop))
    async with asyncio.timeout(20):
        await said.get()
        while len(memory.readings) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        first = len(memory.readings)
        while len(memory.readings) < first + 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
        account = await running
    times = [one.time for one in memory.readings]
    assert account.acknowledged == account.sent == len(times) == len(set(times))
    assert all(0.04 < later - earlier < 0.06 for earlier, later in pairwise(times[-9:]))
