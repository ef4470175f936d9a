"""A command whose module is imported when it is invoked.

Modules of commands import numpy, redis and pyarrow, half a second of CPU together. The list of commands needs none of
them: a row of it is a name, the help's first paragraph, and where the command is.
"""

from __future__ import annotations

import signal
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class LazyCommand(TyperCommand):
    """Stands in the list of commands; what is invoked is the command itself."""

    def __init__(self, name: str, entry: str, help: str) -> None:
        """Prepare.

        Args:
            name: What it is called by.
            entry: ``module:attribute`` of a function, or of a Typer with commands of its own.
            help: First paragraph of the command's own help.
        """
        super().__init__(name=name, help=help)
        self._entry = entry

    def load(self) -> TyperCommand | TyperGroup:
        """Import the command, which takes Ctrl-C from then on."""
        module, _, attribute = self._entry.partition(":")
        found = getattr(import_module(module), attribute)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        command = get_command(alone)
        assert isinstance(command, TyperCommand)
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command itself; what runs is the command of the context."""
        return self.load().make_context(info_name, args, parent, **extra)
