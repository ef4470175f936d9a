"""Other people's MQTT brokers, as processes."""

from __future__ import annotations

import getpass
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port

NODE = Path(__file__).parents[1] / "peers" / "node"
START_SECONDS = 60.0


class MqttServer:
    """Starts on entry, and is killed on exit.

    Attributes:
        port: Where it listens.
        version: The newest MQTT version that it speaks.
        keeps_sessions: Whether what is published for a client that is away is there when it comes again.
        keeps_on_disk: Whether that outlives the broker.
    """

    version = "3.1.1"
    keeps_sessions = True
    keeps_on_disk = False

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Return what starts it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            log_text = (self.directory / "broker.log").read_text(errors="replace")
            assert self.process.poll() is None and time.monotonic() < deadline, log_text[-2000:]
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        self.process.send_signal(number)
        self.process.wait(timeout=START_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class Mosquitto(MqttServer):
    """Eclipse mosquitto."""

    version = "5"
    keeps_on_disk = True

    def __init__(self, directory: Path, program: str, *lines: str) -> None:
        """Prepare.

        Args:
            directory: For its files.
            program: Its path.
            lines: Further lines of mosquitto.conf.
        """
        super().__init__(directory)
        self._program = program
        self._lines = lines

    def command(self) -> list[str]:
        configuration = self.directory / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", f"persistence_location {self.directory}/", "persistence true"]
        lines += [f"user {getpass.getuser()}", "max_queued_messages 0", "max_inflight_messages 4000"]
        lines += self._lines or ("allow_anonymous true",)
        configuration.write_text("\n".join(lines) + "\n")
        return [self._program, "-c", str(configuration)]


class Amqtt(MqttServer):
    """amqtt, as the local stack runs it where mosquitto is not installed."""

    keeps_sessions = False

    def command(self) -> list[str]:
        return [sys.executable, "-m", "isotherm.local.amqtt_broker", "127.0.0.1", str(self.port)]


class Aedes(MqttServer):
    """aedes, of npm."""

    def __init__(self, directory: Path, node: str) -> None:
        super().__init__(directory)
        self._node = node

    def command(self) -> list[str]:
        return [self._node, str(NODE / "broker.js"), str(self.port)]
