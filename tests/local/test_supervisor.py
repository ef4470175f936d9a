"""The supervisor, over small processes that live and die as told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from isotherm import __version__
from isotherm.local import supervisor as module
from isotherm.local.parts import Part
from isotherm.local.supervisor import State, Status, Supervisor

FOREVER = "import time; print('up', flush=True); time.sleep(1000)"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_SECONDS", (0.02, 0.04))


class Bench:
    """Parts of one's own, and the history of their states."""

    def __init__(self, directory: Path, *parts: Part) -> None:
        self.history: list[tuple[str, State]] = []
        self._changed = asyncio.Event()
        environment = dict(os.environ)
        self.supervisor = Supervisor(parts, {part.name: environment for part in parts}, directory, self._note)

    def _note(self, status: Status) -> None:
        self.history.append((status.part.name, status.state))
        self._changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bench]:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            self.supervisor.start(tasks)
            try:
                yield self
            finally:
                await self.supervisor.stop((0, 1), 5.0)
                await self.supervisor.end()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def status(self, name: str) -> Status:
        return next(one for one in self.supervisor.statuses if one.part.name == name)

    def count(self, name: str, state: State) -> int:
        return self.history.count((name, state))


async def _yes() -> bool:
    return True


def part(name: str, program: str = FOREVER, **options: object) -> Part:
    ready = options.pop("ready", _yes)
    return Part(name, lambda: [sys.executable, "-c", program], ready, **options)  # type: ignore[arg-type]


async def test_parts_start_after_what_they_need(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def when_open() -> bool:
        return gate.is_set()

    bench = Bench(tmp_path, part("base", ready=when_open), part("top", needs=("base",)))
    async with bench.running():
        await bench.until(lambda: bench.count("base", State.STARTING) == 1)
        assert bench.status("top").pid is None
        gate.set()
        await bench.supervisor.all_ready()
    assert bench.history.index(("base", State.READY)) < bench.history.index(("top", State.STARTING))


async def test_a_part_that_dies_is_started_again_and_the_reason_is_told(tmp_path: Path) -> None:
    async def has_spoken() -> bool:
        return b"up" in (tmp_path / "base.log").read_bytes()

    bench = Bench(tmp_path, part("base", ready=has_spoken))
    async with bench.running():
        await bench.supervisor.all_ready()
        pid = bench.status("base").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await bench.until(lambda: bench.count("base", State.READY) == 2)
        status = bench.status("base")
        assert status.pid != pid
        assert status.restarts == 1
        assert "killed by SIGKILL" in status.note
        assert "up" in status.note  # its last words


async def test_back_off_grows_while_a_part_does_not_get_healthy(tmp_path: Path) -> None:
    bench = Bench(tmp_path, part("base", "raise SystemExit('no such file')"))
    async with bench.running():
        await bench.until(lambda: bench.status("base").restarts >= 3)
        assert "starting again in 0.04 s" in bench.status("base").note
        assert "no such file" in bench.status("base").note


async def test_the_last_words_are_those_of_the_run_that_ended(tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    program = f"import os\nif not os.path.exists({once!r}): os.mkdir({once!r}); print('I was here')\nraise SystemExit(3)"
    bench = Bench(tmp_path, part("base", program))
    async with bench.running():
        await bench.until(lambda: bench.status("base").restarts == 1)
        assert "I was here" in bench.status("base").note
        await bench.until(lambda: bench.status("base").restarts >= 2)
        assert "It said nothing" in bench.status("base").note


async def test_parts_that_cannot_go_on_without_it_are_started_anew(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        part("broker"),
        part("client", needs=("broker",), restarts_with=("broker",)),
        part("other", needs=("broker",)),
    )
    async with bench.running():
        await bench.supervisor.all_ready()
        other = bench.status("other").pid
        pid = bench.status("broker").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await bench.until(lambda: bench.count("client", State.READY) == 2)
        assert bench.status("other").pid == other


async def test_a_task_that_ends_well_is_done_and_one_that_fails_is_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path, part("task", "pass", is_task=True), part("bad", "raise SystemExit(1)", is_task=True))
    async with bench.running():
        await bench.until(lambda: bench.status("task").state is State.DONE and bench.status("bad").restarts > 0)


async def test_what_does_not_stop_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
    )

    async def has_spoken() -> bool:
        return b"up" in (tmp_path / "stubborn.log").read_bytes()

    bench = Bench(tmp_path, part("stubborn", stubborn, ready=has_spoken), part("gentle"))
    async with asyncio.TaskGroup() as tasks:
        bench.supervisor.start(tasks)
        await bench.supervisor.all_ready()
        pids = [status.pid for status in bench.supervisor.statuses]
        await bench.supervisor.stop((0,), 0.3)
    assert [pid for pid in pids if pid is not None and psutil.pid_exists(pid)] == []
    assert "was killed" in bench.status("stubborn").note
    assert bench.status("gentle").note == ""


async def test_a_part_that_never_gets_ready_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.1)

    async def never() -> bool:
        return False

    bench = Bench(tmp_path, part("base", ready=never))
    async with bench.running():
        await bench.until(lambda: bench.status("base").restarts >= 2)
        assert bench.count("base", State.READY) == 0


async def test_commands_of_ours_are_forked_and_have_a_session_and_a_log_of_their_own(tmp_path: Path) -> None:
    version = Part("version", lambda: ["--version"], _yes, is_task=True, is_ours=True)
    wrong = Part("wrong", lambda: ["connect", "smoke"], _yes, is_task=True, is_ours=True)

    async def has_its_name() -> bool:
        return psutil.Process(bench.status("fleet").pid).name() == "fleet"

    fleet = Part("fleet", lambda: ["simulate", "--target", "127.0.0.1:1"], has_its_name, is_ours=True)
    bench = Bench(tmp_path, version, wrong, fleet)
    async with bench.running():
        await bench.until(lambda: bench.count("fleet", State.READY) == 1)
        first = bench.status("fleet").pid
        assert first is not None
        assert os.getsid(first) == first
        os.kill(first, signal.SIGKILL)
        await bench.until(lambda: bench.count("fleet", State.READY) == 2)
        assert bench.status("fleet").pid != first
        assert bench.status("fleet").note.startswith("killed by SIGKILL; starting again")
        await bench.until(lambda: bool(bench.count("version", State.DONE) and bench.count("wrong", State.BACKING_OFF)))
        assert "ended with exit code" in bench.status("wrong").note
    assert (tmp_path / "version.log").read_text() == f"isotherm {__version__}\n"
    assert "'smoke'" in (tmp_path / "wrong.log").read_text()
    assert psutil.Process().children(recursive=True) == []
