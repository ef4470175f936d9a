"""What a person or a program sees of a running local stack: a table on a terminal, lines elsewhere, or JSON."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from isotherm.ledger import COLUMNS, Line
from isotherm.local.supervisor import State, Status

_COLOURS = {
    State.WAITING: "dim",
    State.STARTING: "yellow",
    State.READY: "green",
    State.BACKING_OFF: "red",
    State.DONE: "blue",
    State.STOPPED: "dim",
}


class Screen(ABC):
    """Shows a stack."""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def changed(self, status: Status) -> None:
        """A part's state has changed."""

    @abstractmethod
    def ready(self, urls: Mapping[str, str], seconds: float) -> None:
        """Everything runs, ``seconds`` after the start."""

    @abstractmethod
    def says(self, text: str) -> None:
        """Something happened that is worth a line."""

    @abstractmethod
    def refresh(self, statuses: Sequence[Status], ledger: Mapping[str, Line]) -> None:
        """Time has passed."""

    @abstractmethod
    def ended(self, ledger: Mapping[str, Line]) -> None:
        """Everything has stopped; these are the last numbers."""


def choose(*, as_json: bool) -> Screen:
    """Return the screen that suits the output."""
    if as_json:
        return JsonScreen()
    return TableScreen() if sys.stdout.isatty() else LineScreen()


class JsonScreen(Screen):
    """One JSON object a line."""

    def changed(self, status: Status) -> None:
        self._write(
            event="part",
            part=status.part.name,
            state=status.state,
            pid=status.pid,
            restarts=status.restarts,
            note=status.note,
        )

    def ready(self, urls: Mapping[str, str], seconds: float) -> None:
        self._write(event="ready", urls=urls, seconds=round(seconds, 2))

    def says(self, text: str) -> None:
        self._write(event="message", text=text)

    def refresh(self, statuses: Sequence[Status], ledger: Mapping[str, Line]) -> None:
        return None

    def ended(self, ledger: Mapping[str, Line]) -> None:
        self._write(event="ended", ledger=ledger, total=sum(ledger.values(), Line()))

    def _write(self, **event: Any) -> None:
        _print(msgspec.json.encode(event).decode())


class LineScreen(Screen):
    """One line an event, for logs and pipes."""

    def changed(self, status: Status) -> None:
        text = f"{status.part.name}: {status.state}"
        if status.state is State.BACKING_OFF and status.note:
            text += f" ({status.note})"
        self.says(text)

    def ready(self, urls: Mapping[str, str], seconds: float) -> None:
        self.says(f"ready after {seconds:.1f} s")
        for name, url in urls.items():
            self.says(f"  {name:8} {url}")

    def says(self, text: str) -> None:
        _print(f"{datetime.now():%H:%M:%S} {text}")

    def refresh(self, statuses: Sequence[Status], ledger: Mapping[str, Line]) -> None:
        return None

    def ended(self, ledger: Mapping[str, Line]) -> None:
        Console().print(ledger_table(ledger))


class TableScreen(Screen):
    """A table that is redrawn in place, with the events above it."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def changed(self, status: Status) -> None:
        if status.state is State.BACKING_OFF:
            self.says(f"[red]{status.part.name}[/] {escape(status.note)}")

    def ready(self, urls: Mapping[str, str], seconds: float) -> None:
        self.says(f"[green]Ready[/] after {seconds:.1f} s: open [bold link={urls['web']}]{urls['web']}[/]")

    def says(self, text: str) -> None:
        self._console.print(f"[dim]{datetime.now():%H:%M:%S}[/] {text}")

    def refresh(self, statuses: Sequence[Status], ledger: Mapping[str, Line]) -> None:
        table = Table("part", "state", "address", "pid", "cpu %", "MiB", "restarts", "note", box=None, pad_edge=False)
        for status in statuses:
            table.add_row(
                status.part.name,
                f"[{_COLOURS[status.state]}]{status.state}[/]",
                status.part.address,
                str(status.pid or ""),
                f"{status.cpu_percent:.0f}" if status.pid else "",
                f"{status.memory_bytes / 2**20:.0f}" if status.pid else "",
                str(status.restarts or ""),
                escape(status.note[:60]),
            )
        total = sum(ledger.values(), Line())
        sums = "   ".join(f"{name.replace('_', ' ')} {getattr(total, name):,}" for name in COLUMNS)
        self._live.update(Group(table, f"\n[bold]{sums}[/]   [dim]Ctrl-C stops[/]"), refresh=True)

    def ended(self, ledger: Mapping[str, Line]) -> None:
        self._live.update("")
        self._live.stop()
        self._console.print(ledger_table(ledger))


def _print(line: str) -> None:
    """Print a line; when the reader has left, go on in silence: the stack must still stop in order."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ledger_table(ledger: Mapping[str, Line]) -> Group:
    """Draw the ledger: a line per connector, their sum, and below it why inputs were rejected."""
    table = Table("connector", *(name.replace("_", " ") for name in COLUMNS), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for name, line in [*ledger.items(), ("total", sum(ledger.values(), Line()))]:
        table.add_row(name, *(f"{getattr(line, column):,}" for column in COLUMNS))
    because = [
        f"{name} rejected: " + ", ".join(f"{reason} {count:,}" for reason, count in sorted(line.reasons.items()))
        for name, line in ledger.items()
        if line.reasons
    ]
    return Group(table, *(["", *because, "see: isotherm rejects list"] if because else []))
