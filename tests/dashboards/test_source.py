"""A source: read once for all who watch, told when it has changed, and left alone when nobody watches."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dashboards.source import Source
from isotherm.errors import Unavailable
from isotherm.process import end

BEAT = 0.001


class Store:
    """What is read: each reading takes the next of what was put, or the last again."""

    def __init__(self) -> None:
        self.value: object = "one"
        self.problem: str | None = None
        self.reads = 0

    async def read(self) -> object:
        self.reads += 1
        if self.problem is not None:
            raise Unavailable(self.problem)
        return self.value


class Session:
    """One that watches; keeps what it was told."""

    def __init__(self, source: Source[object]) -> None:
        self.source = source
        self.is_slow = False
        self.told: asyncio.Queue[tuple[object, str | None]] = asyncio.Queue()
        source.watch(self, Session.changed)

    def is_behind(self) -> bool:
        return self.is_slow

    def changed(self) -> None:
        self.told.put_nowait((self.source.value, self.source.problem))

    async def next(self) -> tuple[object, str | None]:
        async with asyncio.timeout(5):
            return await self.told.get()


@asynccontextmanager
async def running(source: Source[object]) -> AsyncIterator[None]:
    task = asyncio.create_task(source.run())
    try:
        yield
    finally:
        await end([task])


async def reads_beyond(store: Store, count: int) -> None:
    async with asyncio.timeout(5):
        while store.reads <= count:  # noqa: ASYNC110  # what is waited for is a count
            await asyncio.sleep(0)


async def test_each_watcher_is_told_what_is_there_and_then_what_changes_and_nothing_twice() -> None:
    store = Store()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        first = Session(source)
        assert await first.next() == ("one", None)
        second = Session(source)
        assert await second.next() == ("one", None)
        await reads_beyond(store, store.reads + 5)
        store.value = "two"
        assert [await first.next(), await second.next()] == [("two", None)] * 2
        await reads_beyond(store, store.reads + 5)
        assert first.told.empty() and second.told.empty()


async def test_a_problem_is_told_with_what_was_known_and_its_end() -> None:
    store = Store()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        session = Session(source)
        await session.next()
        store.problem = "away"
        assert await session.next() == ("one", "away")
        store.problem = None
        assert await session.next() == ("one", None)


async def test_nothing_is_read_while_nobody_watches_and_what_was_is_not_shown_later() -> None:
    store = Store()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        session = Session(source)
        await session.next()
        source.release(session)
        count = store.reads
        source.hurry()
        async with asyncio.timeout(5):
            while source._wake.is_set():  # noqa: ASYNC110  # until it has heard that, and found that nobody watches
                await asyncio.sleep(0)
        assert store.reads == count
        store.value = "two"
        assert await Session(source).next() == ("two", None)


async def test_one_that_comes_while_it_pauses_after_a_reading_that_took_long_is_told_too() -> None:
    class Slow(Store):
        async def read(self) -> object:
            busy_until = time.thread_time() + 0.02  # the pause after it is ten times as long
            while time.thread_time() < busy_until:
                pass
            return await super().read()

    store = Slow()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        session = Session(source)
        await session.next()
        source.release(session)
        assert await Session(source).next() == ("one", None)


async def test_a_slow_browser_is_told_how_it_is_when_it_can_take_it_and_no_steps_before() -> None:
    store = Store()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        slow, fast = Session(source), Session(source)
        assert [await slow.next(), await fast.next()] == [("one", None)] * 2
        slow.is_slow = True
        for value in ("two", "three"):
            store.value = value
            assert await fast.next() == (value, None)
        await reads_beyond(store, store.reads + 5)
        assert slow.told.empty()
        slow.is_slow = False
        assert await slow.next() == ("three", None)
        await reads_beyond(store, store.reads + 5)
        assert slow.told.empty() and fast.told.empty()


async def test_a_session_that_fails_keeps_nobody_from_the_news() -> None:
    class Failing(Session):
        def changed(self) -> None:
            raise RuntimeError("gone")

    store = Store()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        failing = Failing(source)
        source.watch(failing, Failing.changed)
        assert await Session(source).next() == ("one", None)


async def test_a_forgotten_session_is_held_by_nobody() -> None:
    store = Store()
    source = Source("test", store.read, seconds=BEAT)
    async with running(source):
        session = Session(source)
        await session.next()
        del session
        kept = Session(source)
        await kept.next()
        assert len(source._watchers) == 1


async def test_who_asks_once_is_told_what_is_so_now_though_nobody_has_watched() -> None:
    store = Store()
    source: Source[object] = Source("test", store.read, seconds=BEAT, idle_seconds=3600)
    async with running(source):
        await reads_beyond(store, 0)
        store.value = "two"
        await asyncio.sleep(2 * BEAT)
        assert await source.read() == "two"
