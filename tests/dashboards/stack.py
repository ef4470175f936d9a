"""What the tests of the dashboards run against: a store that they fill, and the web process as users start it."""

import multiprocessing
import os
import signal
import time
import urllib.request
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self
from urllib.error import URLError

import numpy as np

from agents.downsample import downsample
from isotherm.clock import now_us
from isotherm.local.forked import run
from isotherm.pack import Pack
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.writer import Writer
from isotherm.topics import partition_of

START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02

Readings = Mapping[str, Sequence[tuple[int, float]]]
"""Series → (time in µs, value)."""


class Filler:
    """Writes readings into the store as a worker does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next: dict[int, int] = {}

    async def write(self, readings: Readings, units: Mapping[str, str] | None = None) -> None:
        """Commit readings; each series is one pack."""
        packs: dict[int, list[Pack]] = {}
        for series, points in readings.items():
            pack = Pack(
                names=[series],
                series=np.zeros(len(points), dtype=np.int32),
                time=np.array([time for time, _ in points], dtype=np.int64),
                value=np.array([value for _, value in points], dtype=np.float64),
                connector="test/1",
                received_at=now_us(),
                units={series: units[series]} if units and series in units else {},
            )
            packs.setdefault(partition_of(series.partition("/")[0], self._settings.partitions), []).append(pack)
        async with client.connected(self._settings) as redis:
            writer = Writer(redis, "downsample", "test")
            for partition, some in packs.items():
                expected = self._next.get(partition)
                after = (expected or 0) + 1
                assert await writer.commit(partition, downsample(some), expected=expected, next_offset=after) is None
                self._next[partition] = after


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["isotherm.cli.run", "dashboards.process"])  # two seconds of imports, once


class Web:
    """The web process; its port outlives it."""

    def __init__(self, settings: Settings, *options: str) -> None:
        self._settings = settings
        self._options = options
        self._process: ForkServerProcess | None = None
        self._log = Path(settings.data_dir) / "web.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The address of the fleet page, without its slash."""
        return f"http://{self._settings.host}:{self._settings.web_port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has logged in all its runs."""
        return self._log.read_text()

    def start(self) -> None:
        """Start it and wait until it serves."""
        environment = {**os.environ, **self._settings.environment()}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        arguments = ("web", ["web", *self._options], environment, self._log, signal.SIGKILL)
        self._process = _context.Process(target=run, args=arguments)
        self._process.start()
        deadline = time.monotonic() + START_SECONDS
        while self.status("/healthz") != 200:
            if self._process.exitcode is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the web process did not start:\n{self.log[-4000:]}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> float:
        """End it as a supervisor does; returns how long that took, s."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        self._process.join(STOP_SECONDS)
        assert self._process.exitcode == 0, self.log[-4000:]
        self._process = None
        return time.monotonic() - began

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def text(self, path: str) -> str:
        """Return the body of an answer."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def status(self, path: str) -> int | None:
        """Return the status of an answer, or None when there is none."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (URLError, OSError):
            return None
