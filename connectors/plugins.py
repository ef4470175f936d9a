"""Plug-ins: what a user's own Python file defines."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isotherm.errors import SettingsError


def definitions_of(path: Path) -> dict[str, Any]:
    """Run a Python file and return all that it defines.

    Raises:
        SettingsError: it cannot be run.
    """
    try:
        return runpy.run_path(str(path), run_name=path.stem)
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error


def function_in(path: Path, name: str) -> Callable[..., Any]:
    """Run a Python file and return a function that it defines.

    Raises:
        SettingsError: it cannot be run, or defines no such function.
    """
    function: Callable[..., Any] | None = definitions_of(path).get(name)
    if not callable(function):
        raise SettingsError(f"{path} defines no function {name!r}; see connectors/README.md")
    return function
