"""A local stack as a user starts it: the real `isotherm up`, in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from isotherm.local.ports import Ports
from tests.support.ports import free_ports

START_SECONDS = 120.0
ISOTHERM = (sys.executable, "-m", "isotherm")


class Stack:
    """Starts on entry, waits until everything is ready, and stops on exit."""

    def __init__(self, data_dir: Path, *options: str, **settings: str) -> None:
        """Prepare.

        Args:
            data_dir: Of the stack; use it again to start again with the same history.
            options: Further options of ``isotherm up``.
            settings: ``kafka="host:port"`` sets ISOTHERM_KAFKA.
        """
        self.data_dir = data_dir
        self.ports = Ports.from_base(free_ports(len(Ports.__slots__)))
        self.events: list[dict[str, Any]] = []
        self.seconds_to_ready = 0.0
        self.exit_code: int | None = None
        self._options = options
        self._settings = {f"ISOTHERM_{name.upper()}": value for name, value in settings.items()}
        self._arrivals: queue.Queue[dict[str, Any] | None] = queue.Queue()

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which other commands find this stack."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ISOTHERM_")}
        return {**inherited, **self._settings, "ISOTHERM_DATA_DIR": str(self.data_dir)}

    @property
    def web(self) -> str:
        """URL of the dashboards."""
        return f"http://127.0.0.1:{self.ports.web}/"

    def __enter__(self) -> Self:
        command = [*ISOTHERM, "up", "--json", "--port-base", str(self.ports.web), *self._options]
        self.process = subprocess.Popen(
            command, env=self.environment, cwd=self.data_dir.parent, stdout=subprocess.PIPE, start_new_session=True
        )
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self.seconds_to_ready = float(self.wait_for("ready")["seconds"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait_for(self, event: str, seconds: float = START_SECONDS, **fields: Any) -> dict[str, Any]:
        """Return the next event of that kind whose fields have these values."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                arrived = self._arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event} {fields} within {seconds} s; {self._story()}") from None
            if arrived is None:
                raise AssertionError(f"the stack ended before {event}; {self._story()}")
            if arrived["event"] == event and all(arrived.get(name) == value for name, value in fields.items()):
                return arrived

    def stop(self) -> dict[str, Any]:
        """Stop as Ctrl-C does; returns the last event, which holds the ledger."""
        if self.exit_code is None:
            family = self.family()
            self.process.send_signal(signal.SIGINT)
            try:
                self.exit_code = self.process.wait(timeout=30)
            finally:
                for member in family:
                    if member.is_running():
                        member.kill()
        return self.events[-1] if self.events else {}

    def family(self) -> list[psutil.Process]:
        """Return the supervisor's processes."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def pid_of(self, part: str) -> int:
        """Return the process id that a part has now."""
        return int([e for e in self.events if e["event"] == "part" and e["part"] == part and e["pid"]][-1]["pid"])

    def run(self, *arguments: str, check: bool = True, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run ``isotherm`` beside the stack, found through its data directory."""
        return subprocess.run(
            [*ISOTHERM, *arguments], env=self.environment, capture_output=True, text=True, check=check, timeout=seconds
        )

    def json(self, *arguments: str) -> Any:
        """Run ``isotherm … --json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def ledger_when_settled(self, received: int, seconds: float = 60.0) -> dict[str, Any]:
        """Return the total line once ``received`` readings have come and none is in flight."""
        deadline = time.monotonic() + seconds
        while True:
            total: dict[str, Any] = self.json("ledger")["total"]
            if total["received"] >= received and total["in_flight"] == 0:
                return total
            assert time.monotonic() < deadline, f"{received} were sent, the ledger says {total}; {self._story()}"
            time.sleep(0.2)

    def log_of(self, part: str) -> str:
        """Return what a part has logged."""
        return (self.data_dir / "logs" / f"{part}.log").read_text(errors="replace")

    def complaints(self, *parts: str) -> list[str]:
        """Return the warnings and errors in the logs of parts, all of them by default."""
        names = parts or [path.stem for path in (self.data_dir / "logs").glob("*.log")]
        bad = (" WARN", " ERROR", "CRITICAL", "Traceback", "Error")
        harmless = (
            "Marking the coordinator dead",  # a busy machine; the worker finds it again
            "Memory overcommit must be enabled",  # Valkey's advice about the machine
            "GroupCoordinatorNotAvailableError",  # a new Apache Kafka creates its offsets topic on first use
        )
        return [
            f"{name}: {line}"
            for name in names
            for line in self.log_of(name).splitlines()
            if any(word in line for word in bad) and not any(text in line for text in harmless)
        ]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            self._arrivals.put(event)
        self._arrivals.put(None)

    def _story(self) -> str:
        logs = "".join(f"\n--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in self.data_dir.glob("logs/*.log"))
        return f"events: {self.events[-12:]}{logs}"
