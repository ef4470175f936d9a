"""How commands run and print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from isotherm import stackfile
from isotherm.clock import iso as iso
from isotherm.errors import SettingsError, Unavailable
from isotherm.process import run_command
from isotherm.settings import Settings

_UNCUT = 1_000
"""Width of a table that no terminal shows, in characters."""

_Answer = TypeVar("_Answer")


def run(settings: Settings, work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a coroutine that works on the store or the log itself; see `on_the_server`."""
    try:
        on_the_server(settings)
    except SettingsError:
        work.close()
        raise
    return asked(settings, work)


def on_the_server(settings: Settings) -> Settings:
    """Return settings, where the store and the log are that they name.

    Raises:
        SettingsError: ISOTHERM_URL names a platform elsewhere; another store is not worked on instead of its.
    """
    if settings.url:
        raise SettingsError(
            f"this command works on the store itself, and not over the REST API that ISOTHERM_URL names ({settings.url}): "
            "run it on the platform's machine, or without ISOTHERM_URL"
        )
    return settings


def asked(settings: Settings, work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a coroutine that asks `isotherm.cli.sources`, wherever the platform is.

    Where a server does not answer because none was started, it is said how to start one.
    """
    try:
        return run_command(work)
    except Unavailable as error:
        if settings.url or stackfile.read(settings.data_dir) is not None:
            raise
        raise Unavailable(
            f"{error}\n  No local stack runs in {settings.data_dir}: start one with `isotherm up`, name its directory with "
            "--data-dir, or set ISOTHERM_REDIS and ISOTHERM_KAFKA"
        ) from error


def print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(*map(shown, row))
    # What devices send is no markup of ours.
    Console(width=None if sys.stdout.isatty() else _UNCUT, markup=False, emoji=False).print(table)


def shown(text: str) -> str:
    r"""Return text of a stranger's as a terminal may show it: what would control the terminal is written out.

    >>> print(shown("\x1b[2J 21.5 °C"))
    \x1b[2J 21.5 °C
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def as_shown(text: str) -> str:
    """Return lines of a stranger's: as they are, unless a terminal shows them."""
    return "\n".join(map(shown, text.split("\n"))) if sys.stdout.isatty() else text


def text_of(value: Any) -> str:
    """Return a value of JSON as people read it: a text as it is, nothing as nothing."""
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


def since(time: datetime) -> str:
    """Say how long ago a time was."""
    return ago((datetime.now(UTC) - time) // timedelta(microseconds=1))


def ago(span: int) -> str:
    seconds = max(0, span) / 1e6
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], object]]:
    """Show a bar on standard error, if that is a terminal; yields what is told (done, of how many)."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
