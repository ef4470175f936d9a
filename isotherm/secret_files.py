"""Secrets as files: a folder with a file for each variable, as Kubernetes and Docker mount them.

pydantic-settings' own source of this kind only warns where the folder is not there, knows nothing of files that belong to no
setting, and is asked after the local stack's addresses, which are given to it. So the folder is read here: all of it must be
usable, or nothing starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from isotherm.errors import SettingsError

MAX_SECRET_BYTES = 64 * 1024


def read(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Return file's name → its text without the line ends at its end, where editors and `echo` leave one.

    Hidden names are left out: Kubernetes keeps the files below ``..data``, to which their names are links. So are folders.

    Args:
        folder: The folder.
        names: What files may be called.

    Raises:
        SettingsError: it is not there; a file cannot be read, is no text, or has another name.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _counts(path, names))
    except OSError as error:
        raise SettingsError(
            f"ISOTHERM_SECRETS_DIR is {str(folder)!r}: {error.strerror}; mount the secrets there, or do not set it"
        ) from error
    for path in paths:
        if path.name not in names:
            raise SettingsError(f"{path}: there is no setting {path.name}{_meant(path.name, names)}")
    return {path.name: _text(path) for path in paths}


def _counts(path: Path, names: Collection[str]) -> bool:
    return path.name in names or not path.is_dir()


def _meant(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name.upper(), names, 1)
    return f", did you mean {near[0]}?" if near else "; keep files that are no settings in another folder"


def _text(path: Path) -> str:
    try:
        if not path.exists():
            raise SettingsError(f"cannot read {path}: it is a link to a file that is not there")
        if not path.is_file():
            raise SettingsError(f"cannot read {path}: it is no file")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; this process runs as another user?") from error
    if len(content) > MAX_SECRET_BYTES:
        raise SettingsError(f"{path} has more than {MAX_SECRET_BYTES:,} bytes, expected the value of {path.name}")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no UTF-8 text, expected the value of {path.name}") from error
    if "\0" in text:
        raise SettingsError(f"{path} has a null character in it, expected the value of {path.name}")
    return text.rstrip("\r\n")
