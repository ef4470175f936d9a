"""The file by which other commands find a running local stack: ``stack.json`` in its data directory.

The running stack holds a lock on the file for as long as it lives, so a file left behind by a crash is recognised
without guessing from process ids, and two stacks cannot share a directory.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from isotherm.errors import StackError


@dataclass(frozen=True, slots=True)
class StackFile:
    """What a running stack tells about itself.

    Attributes:
        pid: Process id of the supervisor.
        settings: The settings by which its parts are reached.
    """

    pid: int
    settings: Mapping[str, Any]


def read(data_dir: Path) -> StackFile | None:
    """Return the file of the stack that runs in ``data_dir``, or None when none runs there."""
    try:
        with _path(data_dir).open("rb") as file:
            if not _is_locked(file.fileno()):
                return None
            return msgspec.json.decode(file.read(), type=StackFile)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    except OSError as error:
        raise StackError(f"cannot read {_path(data_dir)}: {error.strerror}") from error


@contextmanager
def held(data_dir: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Announce this process as the stack of ``data_dir`` for the length of the block.

    Raises:
        StackError: another stack runs there, or the directory cannot be written.
    """
    path = _path(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror}; choose another --data-dir") from error
    with os.fdopen(descriptor, "r+b") as file:
        if not _lock(file.fileno()):
            raise StackError(
                f"a stack runs in {data_dir} already (pid {_pid(file.read())}); stop it, or choose another --data-dir"
            )
        file.truncate()
        file.write(msgspec.json.encode(StackFile(os.getpid(), settings)))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _path(data_dir: Path) -> Path:
    return data_dir / "stack.json"


def _lock(descriptor: int) -> bool:
    # A command that looks for a stack holds the lock for some microseconds: not a reason to give up.
    for _ in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _pid(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content, type=StackFile).pid)
    except msgspec.DecodeError:
        return "unknown"
