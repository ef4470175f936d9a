"""A Redis Cluster for tests: three primaries with a replica each, in subprocesses.

The nodes are told of each other by the files that they keep themselves, so there is nothing to wait for but the two
seconds that a primary takes before it accepts writes.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from isotherm.store import layout
from tests.support.ports import free_port

PRIMARIES = 3
SLOTS = 16384
NODE_TIMEOUT_MS = 1000
START_SECONDS = 30.0
FAILOVER_SECONDS = 6.0  # after five the nodes give an exchange up
POLL_SECONDS = 0.02


class Node:
    """One server of the cluster; its data outlives its process."""

    def __init__(self, number: int, directory: Path, binary: str) -> None:
        self.id = f"{number + 1:040x}"
        self.port, self.bus_port = free_port(), free_port()
        self.directory = directory
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it on the data that the last run has written; returns at once."""
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "")
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port), "--repl-diskless-sync-delay", "0")
        timeout = ("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--enable-debug-command", "local")
        with (self.directory / "node.log").open("ab") as output:
            command = [self._binary, *options, *cluster, *timeout, "--appendonly", "yes"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def kill(self) -> None:
        """End it at once with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def last_words(self) -> str:
        """Return the end of its log."""
        return (self.directory / "node.log").read_text()[-1000:]

    def ask(self, *command: str) -> Any:
        """Return the answer to a command.

        Raises:
            RedisError: it refused, or does not answer.
        """
        with Redis(port=self.port, socket_timeout=5.0, decode_responses=True) as redis:
            return redis.execute_command(*command)


class RedisCluster:
    """Three primaries and three replicas; ``kill`` ends the primary of one partition, and ``start`` mends the cluster."""

    def __init__(self, data_dir: Path, binary: str, partition: int = 0) -> None:
        self.nodes = [Node(number, data_dir / str(number), binary) for number in range(2 * PRIMARIES)]
        self._partition = partition
        for node in self.nodes:
            node.directory.mkdir(parents=True)
            self._introduce(node)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address for clients: every node is a seed."""
        return "redis://" + ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Start the nodes that do not run, and wait until every slot has a primary and every primary its replica.

        A primary that was killed comes back as a replica, when another has taken its place.
        """
        running = [node for node in self.nodes if node.is_running]
        if running:
            addresses = {node.address for node in running}
            _wait(lambda: all(_state(node) == "ok" and _primaries(node) <= addresses for node in running))
        for node in self.nodes:
            if not node.is_running:
                node.start()
            else:
                node.ask("CONFIG", "SET", "masteruser", "", "masterauth", "")  # see cut_off
        try:
            _wait(lambda: all(_state(node) == "ok" for node in self.nodes) and self._is_replicated())
        except TimeoutError as error:
            for node in self.nodes:
                error.add_note(f"{node.address}: {node.last_words()}")
            raise

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    def kill(self) -> None:
        """Kill the primary of the partition when its replica has what it has acknowledged."""
        primary = self.primary_of(self._partition)
        primary.ask("WAIT", "1", "5000")
        primary.kill()

    def empty(self) -> None:
        """Forget all data."""
        for node in self.primaries():
            node.ask("FLUSHALL")

    def primaries(self) -> list[Node]:
        """Return the nodes that are primaries and run."""
        return [node for node in self.nodes if node.is_running and _role(node) == "master"]

    def primary_of(self, partition: int) -> Node:
        """Return the primary of a partition's keys."""
        slot = key_slot(layout.latest_key(partition).encode())
        view = next(node for node in self.nodes if node.is_running).ask("CLUSTER SLOTS")
        port = next(primary[1] for first, last, primary, *_ in view if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, primary: Node) -> Node:
        """Return a replica of a primary."""
        return next(node for node in self.nodes if node.is_running and _primary_port(node) == primary.port)

    def cut_off(self, replica: Node) -> None:
        """Let a replica get nothing more from its primary, with a password that the primary does not know."""
        replica.ask("CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong")
        replica.ask("CLIENT", "KILL", "TYPE", "master")
        _wait(lambda: replica.ask("ROLE")[3] != "connected")

    def exchange(self, replica: Node) -> None:
        """Let a replica and its primary change places; both agree on it, or not, so it is asked for until they do."""
        for _ in range(5):
            replica.ask("CLUSTER FAILOVER")
            with contextlib.suppress(TimeoutError):
                return _wait(lambda: _role(replica) == "master", FAILOVER_SECONDS)
        raise TimeoutError("a replica and its primary do not change places")

    def _is_replicated(self) -> bool:
        roles = [_role(node) for node in self.nodes]
        return roles.count("master") == PRIMARIES and all(
            node.ask("ROLE")[3] == "connected" for node, role in zip(self.nodes, roles, strict=True) if role == "slave"
        )

    def _introduce(self, node: Node) -> None:
        """Write the file in which a node keeps what it knows of the cluster."""
        lines = []
        for number, other in enumerate(self.nodes):
            primary = self.nodes[number % PRIMARIES]
            flags = "myself," if other is node else ""
            address = f"127.0.0.1:{other.port}@{other.bus_port}"
            epoch = number % PRIMARIES + 1
            if other is primary:
                first, last = (SLOTS * part // PRIMARIES for part in (number, number + 1))
                lines.append(f"{other.id} {address} {flags}master - 0 0 {epoch} connected {first}-{last - 1}")
            else:
                lines.append(f"{other.id} {address} {flags}slave {primary.id} 0 0 {epoch} connected")
        lines.append(f"vars currentEpoch {PRIMARIES} lastVoteEpoch 0")
        (node.directory / "nodes.conf").write_text("\n".join(lines) + "\n")


def _wait(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(RedisError):  # of a node that is still loading, or not listening yet
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the cluster is not as it should be after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def _state(node: Node) -> str:
    return str(node.ask("CLUSTER INFO")["cluster_state"])


def _primaries(node: Node) -> set[str]:
    """Return the addresses of the primaries that have slots, as a node sees it."""
    return {address for address, about in node.ask("CLUSTER NODES").items() if about["slots"]}


def _role(node: Node) -> str:
    return str(node.ask("ROLE")[0])


def _primary_port(node: Node) -> int | None:
    role = node.ask("ROLE")
    return int(role[2]) if role[0] == "slave" else None
