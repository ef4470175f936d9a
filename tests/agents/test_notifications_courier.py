"""The courier: it tries again, gives up loudly, lets no channel delay another, and says the same under the same id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from prometheus_client import REGISTRY

from agents.notifications.channels import sender_of
from agents.notifications.channels.sender import Refused, Sender, Unreached
from agents.notifications.courier import FIRST_RETRY, GIVE_UP, JITTER, LAST_RETRY, Courier
from agents.notifications.message import Delivery
from agents.notifications.router import GivenUp, Router
from isotherm.channels import Channel, Quiet, Webhook
from isotherm.errors import Unavailable
from isotherm.limits import HOUR, SECOND
from tests.support.far_ends import STALL, Hook, hook
from tests.support.notifications import NOWHERE, Crash, FarEnd, World, count, event


@asynccontextmanager
async def hooked(window: int = 30, quiet: Quiet | None = None) -> AsyncIterator[tuple[World, Hook]]:
    """A process whose one channel is a webhook on a real server."""
    async with hook() as far_end:
        world = World([Channel(id="ops", to=Webhook(url=far_end.url), window=window, quiet=quiet)], sender_of)
        try:
            yield world, far_end
        finally:
            await world.courier.close()


def counted(name: str, channel: str = "ops") -> float:
    return REGISTRY.get_sample_value(f"isotherm_notifications_{name}_total", {"channel": channel}) or 0.0


async def test_what_a_server_does_not_take_is_tried_again_under_the_same_key_until_it_does() -> None:
    async with hooked() as (world, far_end):
        far_end.answers = [(500, {}, ""), (503, {}, ""), (204, {}, "")]
        sent, failed = counted("sent"), counted("failed")
        await world.tell(event(1))
        assert not world.is_empty
        await world.tell(after=3)
        assert len(far_end.requests) == 1  # not before its time
        await world.tell(after=60)
        await world.tell(after=60)
        assert len(far_end.requests) == 3
        assert len({headers["Idempotency-Key"] for headers, _ in far_end.requests}) == 1
        assert len({data for _, data in far_end.requests}) == 1
        assert world.is_empty
        assert (counted("sent") - sent, counted("failed") - failed) == (1, 2)


async def test_a_server_that_says_when_is_left_alone_until_then() -> None:
    async with hooked() as (world, far_end):
        far_end.answers = [(429, {"Retry-After": "3000"}, ""), (204, {}, "")]
        await world.tell(event(1))
        await world.tell(after=2999)
        assert len(far_end.requests) == 1
        await world.tell(after=1)
        assert len(far_end.requests) == 2


async def test_a_server_that_does_not_answer_is_given_up_for_now() -> None:
    async with hooked() as (world, far_end):
        far_end.answers = [STALL, (204, {}, "")]
        world.courier._send_seconds = 0.05
        await world.tell(event(1))
        [row] = [row for key, row in world.rows[0].items() if key.startswith("delivery:")]
        assert msgspec.msgpack.decode(row)["error"] == "no answer within 0.05 s"
        world.courier._send_seconds = 5.0
        await world.tell(after=60)
        assert world.is_empty


async def test_a_channel_that_stalls_delays_no_other() -> None:
    async with hook() as slow, hook() as quick:
        slow.answers = [STALL]
        channels = [Channel(id="a", to=Webhook(url=slow.url)), Channel(id="b", to=Webhook(url=quick.url))]
        world = World(channels, sender_of)
        world.logs[0].append(event(1))
        world.read()
        await world.courier.step()
        await slow.came.wait()
        await quick.came.wait()
        await world.until(lambda: [one.channel for one, _ in world.routers[0].deliveries()] == ["a"])
        world.courier._tasks["a"].cancel()
        await world.courier.close()


async def test_times_between_attempts_double_up_to_ten_minutes_and_after_a_day_it_is_given_up_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(_: Delivery) -> None:
        raise Unreached("away")

    far_end = FarEnd(away)
    world = World([Channel(id="ops", to=NOWHERE)], lambda _: far_end)
    begin, given_up = world.now, counted("given_up")
    await world.tell(event(1))
    times = [world.now]
    while not world.is_empty:
        [(bound, _)] = world.routers[0].deliveries()
        gap = bound.retry_at - world.now
        wanted = min(LAST_RETRY, FIRST_RETRY * 2 ** (bound.attempts - 1))
        assert (1 - JITTER) * wanted <= gap <= (1 + JITTER) * wanted or bound.retry_at == begin + GIVE_UP
        world.now = bound.retry_at
        await world.tell()
        times.append(world.now)
    assert times[-1] == begin + GIVE_UP
    assert len(far_end.attempts) == len(times)
    assert counted("given_up") - given_up == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"channel ops: gave up a delivery of 1 events after {len(times)} attempts, see `isotherm notify failed`: away"
    ]
    [row] = [row for key, row in world.rows[0].items() if key.startswith("failed:")]
    listed = msgspec.msgpack.decode(row, type=GivenUp)
    assert (listed.error, listed.attempts, listed.messages) == ("away", len(times), 1)
    assert "room-1/temperature above 30 °C: raised" in listed.lines[0]


async def test_what_is_refused_for_good_is_given_up_at_once_and_the_next_is_sent() -> None:
    async with hooked(window=0) as (world, far_end):
        far_end.answers = [(404, {}, "no such hook"), (204, {}, "")]
        await world.tell(event(1), event(2, "cleared"))
        assert len(far_end.requests) == 2
        [row] = [row for key, row in world.rows[0].items() if key.startswith("failed:")]
        assert msgspec.msgpack.decode(row, type=GivenUp).error == "HTTP 404 Not Found: no such hook"


async def test_what_comes_while_a_far_end_is_away_leaves_as_a_digest_when_it_is_back() -> None:
    async with hooked() as (world, far_end):
        far_end.answers = [(500, {}, "")]
        await world.tell(event(1))
        for n in range(2, 30):
            await world.tell(event(n, device=f"room-{n}"), after=1)
        far_end.answers = [(204, {}, "")]
        far_end.requests.clear()
        await world.tell(after=3600)
        await world.tell(after=29)
        assert len(far_end.requests) == 1  # a window begins when it is back
        await world.tell(after=1)
        assert [json.loads(data)["count"] for _, data in far_end.requests] == [1, 28]


async def test_a_process_that_dies_between_a_send_and_its_record_sends_the_same_under_the_same_id() -> None:
    far_end = FarEnd()
    world = World([Channel(id="ops", to=NOWHERE)], lambda _: far_end, partitions=2)
    await world.tell(event(0, device="first"))
    for n in range(1, 20):
        world.logs[n % 2].append(event(n, device=f"room-{n}", source=f"alarms/{n % 2}/1"))
    await world.step()
    world.now += 31 * SECOND
    world.dies = lambda at: at == "before" and len(far_end.attempts) == 2  # the digest is sent, and not recorded
    with pytest.raises(Crash):
        await world.step()
    world.dies = lambda _: False
    world.logs[0].append(event(99, device="room-99", source="alarms/0/1"))  # it is not added to what was sent
    world.start()
    await world.step()
    _, sent, again = far_end.attempts
    assert (sent.id, [one.id for one in sent.messages], sent.time) == (
        again.id,
        [one.id for one in again.messages],
        again.time,
    )
    assert len(sent.messages) == 19


async def test_of_a_delivery_whose_other_half_is_elsewhere_the_rest_is_told_under_another_id() -> None:
    def away(_: Delivery) -> None:
        raise Unreached("away")

    far_end = FarEnd(away)
    world = World([Channel(id="ops", to=NOWHERE)], lambda _: far_end, partitions=2)
    for n in range(20):
        world.logs[n % 2].append(event(n, device=f"room-{n}", source=f"alarms/{n % 2}/1"))
    far_end.answer = lambda _: None
    await world.step()
    far_end.answer = away
    world.now += 31 * SECOND
    await world.step()
    whole = far_end.attempts[-1]
    far_end.answer = lambda _: None
    world.start()
    world.courier.detach(1)
    await world.courier.step()
    assert far_end.attempts[-1] is whole  # the other half has time to come
    world.now += HOUR
    await world.step()
    half = far_end.attempts[-1]
    assert half.id != whole.id
    assert {one.id for one in half.messages} == {one.id for one in whole.messages if "|alarms/0/" in one.id}


async def test_what_quiet_hours_find_not_sent_waits_for_their_end_and_holds_back_nothing_that_gets_through() -> None:
    async with hooked(quiet=Quiet(start="14:14", end="15:00")) as (world, far_end):  # it is 14:13:20
        far_end.answers = [(500, {}, ""), (204, {}, "")]
        await world.tell(event(1))
        await world.tell(after=600)
        assert len(far_end.requests) == 1
        await world.tell(event(2, device="room-2", severity="critical"))
        await world.tell(after=2400)
        assert [json.loads(data)["severity"] for _, data in far_end.requests] == ["major", "critical", "major"]
        assert world.is_empty


async def test_a_far_end_cannot_ask_to_be_left_alone_for_ever() -> None:
    async with hooked() as (world, far_end):
        far_end.answers = [(429, {"Retry-After": "9" * 400}, ""), (204, {}, "")]
        await world.tell(event(1))
        await world.tell(after=24 * 3600)
        assert world.is_empty


def test_a_router_before_it_is_known_which_channels_there_are_is_an_error_not_a_loss() -> None:
    with pytest.raises(RuntimeError, match=r"call refresh\(\) first"):
        Courier(World([], lambda _: FarEnd()).save).attach(0, Router())


async def test_nothing_is_sent_that_is_not_stored() -> None:
    far_end = FarEnd()
    world = World([Channel(id="ops", to=NOWHERE)], lambda _: far_end)

    def dies(_: str) -> bool:
        raise Unavailable("the store does not answer")

    world.dies = dies
    await world.tell(event(1))
    assert far_end.attempts == []
    world.dies = lambda _: False
    await world.tell(after=1)
    assert len(far_end.taken) == 1


async def test_a_fault_of_a_sender_is_logged_and_tried_again_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def fault(_: Delivery) -> None:
        raise KeyError("oops")

    ends = {"a": FarEnd(fault), "b": FarEnd()}
    world = World([Channel(id=name, to=NOWHERE) for name in ends], lambda channel: ends[channel.id])
    await world.tell(event(1))
    assert len(ends["b"].taken) == 1
    assert "its sender has a fault" in caplog.text
    ends["a"].answer = lambda _: None
    await world.tell(after=60)
    assert world.is_empty


async def test_secrets_of_an_address_are_in_no_log_and_no_row(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: Delivery) -> None:
        raise Refused("there is no https://example.org/T0KEN-of-it, nor T0KEN-of-it")

    world = World([Channel(id="ops", to=Webhook(url="https://example.org/T0KEN-of-it"))], lambda _: FarEnd(refuse))
    await world.tell(event(1))
    assert "gave up" in caplog.text
    assert "T0KEN" not in caplog.text
    assert not [row for row in world.rows[0].values() if b"T0KEN" in row]


async def test_a_channel_that_is_changed_gets_a_new_sender_and_the_old_one_is_closed() -> None:
    made: list[FarEnd] = []

    def make(_: Channel) -> Sender:
        made.append(FarEnd())
        return made[-1]

    world = World([Channel(id="ops", to=NOWHERE)], make)
    await world.tell(event(1))
    world.courier.refresh([Channel(id="ops", to=NOWHERE, window=0)])
    await world.tell(event(2, "cleared"), after=1)
    assert [(len(one.taken), one.closed) for one in made] == [(1, 1), (1, 0)]


async def test_run_sends_what_it_is_woken_for_and_ends_when_it_is_cancelled() -> None:
    far_end = FarEnd()
    world = World([Channel(id="ops", to=NOWHERE)], lambda _: far_end)
    running = asyncio.create_task(world.courier.run())
    world.logs[0].append(event(1))
    world.read()
    world.courier.wake()
    await world.until(lambda: world.is_empty and bool(far_end.taken))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (count(far_end.taken).total(), far_end.closed) == (1, 1)
