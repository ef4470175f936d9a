"""A file that is there only when it is whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from isotherm.errors import IsothermError

PART_SUFFIX = ".part"
"""Of a file that is not whole yet."""


class NewFile:
    """A file that comes into being under its name when the block ends well, and not at all when it does not."""

    def __init__(self, path: Path, *, replace: bool, mode: int = 0o666) -> None:
        """Prepare; ``mode`` is who may read it, of which the umask takes away.

        Raises:
            IsothermError: there is such a file, and it may not be replaced.
        """
        if path.exists() and not replace:
            raise IsothermError(f"{path} exists; --force replaces it")
        self._path = path
        self._part = path.with_name(path.name + PART_SUFFIX)
        self._mode = mode
        self._file: IO[bytes] | None = None
        self.bytes = 0

    def __enter__(self) -> IO[bytes]:
        try:
            self._part.unlink(missing_ok=True)  # of a process that was killed: with the rights that it was given
            self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode), "wb")
        except OSError as error:
            raise IsothermError(f"{self._part} cannot be written: {error.strerror}") from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self.bytes = self._file.tell()
                self._part.replace(self._path)
                self._keep_name()
        finally:
            self._part.unlink(missing_ok=True)
            with suppress(OSError):  # it could not be written: what is left cannot either
                self._file.close()

    def _keep_name(self) -> None:
        """Have the folder written, too: else a power cut may take the name away again."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
