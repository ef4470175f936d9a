"""The embedded broker alone, for tests that need a log and nothing else."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Self

from isotherm.local.parts import tansu_command
from tests.support.ports import free_port

START_SECONDS = 30.0


class Tansu:
    """A broker in a subprocess; its log ends with it."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(tansu_command("127.0.0.1", self._port), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError("Tansu did not start") from None
                time.sleep(0.01)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
