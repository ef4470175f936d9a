"""Analytics in files: where they lie, and how one is loaded.

A file declares one analytic, of the file's own name. To find them nothing is run; to load one runs its code, so that is done
in a process that can be ended.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from agents.analytic import Analytic
from isotherm.errors import AnalyticFailed, SettingsError
from isotherm.settings import Settings

BUILT_IN = Path(__file__).parent / "analytics"


def folders(settings: Settings) -> list[Path]:
    """Return where analytics of the user's own lie."""
    given = [Path(part).expanduser() for part in settings.agents_path.split(":") if part]
    return given or [settings.data_dir / "agents"]


def find(settings: Settings) -> dict[str, Path]:
    """Return name → file, of those that come with Isotherm first; of two files with one name the first counts."""
    found: dict[str, Path] = {}
    for folder in (BUILT_IN, *folders(settings)):
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith(("_", "test_")):
                found.setdefault(path.stem, path)
    return found


def shadowed(settings: Settings) -> list[Path]:
    """Return files of the user's that do not count, because one with that name comes before."""
    found = find(settings)
    return [path for folder in folders(settings) for path in folder.glob("*.py") if found.get(path.stem, path) != path]


def path_of(name: str, settings: Settings) -> Path:
    """Return the file of an analytic.

    Raises:
        SettingsError: there is none.
    """
    found = find(settings)
    for path in shadowed(settings):
        if path.stem == name:
            raise SettingsError(f"{path} has the name of {found[name]}: call it otherwise, its function too")
    if name not in found:
        places = ", ".join(map(str, folders(settings)))
        raise SettingsError(f"there is no analytic {name!r} in {places}; there are: {', '.join(sorted(found))}")
    return found[name]


def load(path: Path) -> Analytic:
    """Run a file and return the analytic that it declares.

    Raises:
        AnalyticFailed: it cannot be run, or declares none, or several, or one of another name.
    """
    spec = importlib.util.spec_from_file_location(f"isotherm_analytic_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise AnalyticFailed(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise AnalyticFailed(f"{path} cannot be loaded:\n{trimmed(error, path)}") from error
    found = [one for one in vars(module).values() if isinstance(one, Analytic)]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise AnalyticFailed(f"{path} declares {names}, expected one analytic: a function with @formula, @per_reading or so")
    if found[0].name != path.stem:
        raise AnalyticFailed(
            f"{path} declares {found[0].name!r}: call the function {path.stem}, or the file {found[0].name}.py"
        )
    return found[0]


def trimmed(error: BaseException, path: Path) -> str:
    """Return a traceback from where it enters a file on."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((at for at, frame in enumerate(frames) if frame.filename == str(path)), len(frames))
    lines = traceback.format_list(frames[first:])
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip()
