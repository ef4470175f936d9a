"""Processes of ours that are forked from one that has imported already what they need: they share its memory, and start
without the second that the imports take.

The server is multiprocessing's, and does nothing else. When we are killed it ends, and with it what it has forked.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from isotherm.process import die_with_parent, end_fork_server, set_name

_IMPORTED = (
    *("isotherm.cli.run", "isotherm.cli.agent", "isotherm.cli.mqtt", "isotherm.health"),
    *("connectors.process", "connectors.workers", "agents.storing", "agents.host"),
    *("simulator.firmware", "simulator.fleet", "simulator.publishers", "simulator.room"),
)

_context = multiprocessing.get_context("forkserver")


class Forked:
    """A process, with what a supervisor needs of asyncio's ``Process``."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(process.sentinel, self._end)

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative the signal that killed it; None while it runs."""
        return self._code.result() if self._code.done() else None

    async def wait(self) -> int:
        """Return its exit code when it has ended."""
        return await asyncio.shield(self._code)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; raises ProcessLookupError when it has ended."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        self._code.set_result(self._process.exitcode)
        self._process.close()


class Forks:
    """Forks processes; one a program."""

    def __init__(self) -> None:
        self._imported: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Have the server import what is needed; call it in the loop, on the main thread."""
        _context.set_forkserver_preload(list(_IMPORTED))
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal is ours to handle, in stages
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGHUP, before)
        self._imported = asyncio.create_task(asyncio.to_thread(_until_it_forks), name="forks")

    async def start(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path, ended_by: signal.Signals
    ) -> Forked:
        """Start ``isotherm ARGUMENTS``.

        Args:
            name: Shown by ``ps``.
            arguments: Of the command line.
            environment: All of it.
            log: Gets what it writes.
            ended_by: The signal that ends it when we are killed.
        """
        assert self._imported is not None
        await asyncio.shield(self._imported)
        process = _context.Process(target=run, args=(name, arguments, dict(environment), log, ended_by), name=name)
        process.start()
        return Forked(process)

    async def end(self) -> None:
        """End the server; what it has forked has ended."""
        if self._imported is not None:
            await asyncio.wait([self._imported])
            await asyncio.to_thread(end_fork_server)


def _until_it_forks() -> None:
    first = _context.Process(target=int)
    first.start()
    first.join()


def _hold_no_server() -> None:
    """Let the server end when the supervisor does: it knows that by a pipe, which multiprocessing gives to all it forks."""
    server: Any = forkserver._forkserver
    os.close(server._forkserver_alive_fd)
    server._forkserver_alive_fd = None


def run(name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path, ended_by: signal.Signals) -> None:
    """Be what ``python -m isotherm`` is in a session and an environment of its own."""
    os.setsid()  # a Ctrl-C on the terminal is the supervisor's to handle
    die_with_parent(ended_by)
    _hold_no_server()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    set_name(name)
    for path, flags, targets in ((Path(os.devnull), os.O_RDONLY, (0,)), (log, os.O_WRONLY | os.O_APPEND, (1, 2))):
        opened = os.open(path, flags)
        for target in targets:
            os.dup2(opened, target)
        os.close(opened)
    sys.stdout.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["isotherm", *arguments]
    from isotherm.__main__ import main

    main()
