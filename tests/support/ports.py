"""Free ports, also while several processes run tests.

A process that runs tests owns a block of ports, as long as it holds the first one of them: binding that is atomic, and the
kernel gives it back however the process ends. So nobody else takes a port between the moment when it was found free and the
one when a server listens there, and a server that is killed finds its port free when it starts again.

The blocks lie below the ephemeral range: there a client that keeps dialling a killed server may be given the server's own
port as its source, connect to itself, and so keep the server from binding it again.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator

BLOCK = 500
BLOCKS = range(20_000, 32_000, BLOCK)


def free_port() -> int:
    """Return a TCP and UDP port that nobody uses."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of consecutive ports that nobody uses; they are not given again until all of the block were."""
    return _Block.own().take(count)


class _Block:
    def __init__(self) -> None:
        self._guard, self._ports = _claim()
        self._next = 0

    @classmethod
    @functools.cache
    def own(cls) -> _Block:
        """Return the block of this process."""
        return cls()

    def take(self, count: int) -> int:
        for base in self._turn(count):
            if all(_is_free(port) for port in range(base, base + count)):
                self._next = base + count - self._ports.start
                return base
        raise RuntimeError(f"there are no {count} free ports in a row among {self._ports}")

    def _turn(self, count: int) -> Iterator[int]:
        """Every base there is, beginning behind the last port that was given."""
        bases = range(self._ports.start, self._ports.stop - count + 1)
        first = self._next if self._next < len(bases) else 0
        yield from bases[first:]
        yield from bases[:first]


def _claim() -> tuple[socket.socket, range]:
    for first in BLOCKS:
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
        except OSError:
            guard.close()
            continue
        return guard, range(first + 1, first + BLOCK)
    raise RuntimeError(f"{len(BLOCKS)} processes run tests already: there is no block of ports from {BLOCKS.start} on")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
