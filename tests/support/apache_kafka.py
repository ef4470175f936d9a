"""A real Apache Kafka for tests: one KRaft node in a subprocess, or a cluster of three; no container."""

import base64
import shutil
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path
from typing import Self

from tests.support.ports import free_port

LIBS = Path(__file__).resolve().parents[2] / ".kafka" / "libs"

START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
TAIL_LINES = 40

JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",  # starts a third faster, at the price of peak throughput
    "-Dorg.apache.logging.log4j.level=INFO",
)

# broker.session.timeout.ms: the controller refuses a killed broker's successor until the old session has run out.
# log.cleaner.dedupe.buffer.size: its default fills 128 MB of memory at once.
CONFIG = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
num.io.threads=2
num.network.threads=2
offsets.topic.num.partitions=1
offsets.topic.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={nodes}
min.insync.replicas={in_sync}
"""

# Size, api key 3 (Metadata), version 1, correlation id 7, no client id, no topics.
METADATA_REQUEST = struct.pack(">ihhihi", 14, 3, 1, 7, -1, 0)
# Size, correlation id, number of live brokers; the rest does not matter here.
METADATA_REPLY = struct.Struct(">iii")


def available(libs: Path = LIBS) -> str | None:
    """Say why Apache Kafka cannot run here, or None when it can."""
    if shutil.which("java") is None:
        return "there is no java on the PATH"
    if not any(libs.glob("kafka_*.jar")):
        return "Apache Kafka has not been fetched: run `make kafka`"
    return None


class ApacheKafka:
    """A broker whose ports, cluster id and data outlive its process: start() again after kill().

    It is a cluster of its own, or a node of one: then all nodes are told of each other before the first start.
    """

    def __init__(self, libs: Path, data_dir: Path) -> None:
        self._node, self._cluster = 1, [self]
        self._cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._libs = libs
        self._data_dir = data_dir
        self._logs = data_dir / "logs"
        self._config = data_dir / "server.properties"
        self._output = data_dir / "broker.log"
        self._port, self._controller_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The address for clients, the same over restarts."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The id of the running broker's process."""
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the broker, on the data of its last run if there was one, and wait until it serves clients."""
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Start the broker and do not wait."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError("the broker is running already")
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            CONFIG.format(
                node=self._node,
                nodes=len(self._cluster),
                in_sync=len(self._cluster) // 2 + 1,
                voters=",".join(f"{node._node}@127.0.0.1:{node._controller_port}" for node in self._cluster),
                port=self._port,
                controller_port=self._controller_port,
                logs=self._logs.resolve(),
            )
        )
        if not (self._logs / "meta.properties").exists():
            self._format()
        with self._output.open("ab") as output:
            command = self._java("kafka.Kafka", str(self._config))
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def wait_until_ready(self) -> None:
        """Return when a broker that was begun serves clients; one that does not is killed."""
        assert self._process is not None
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the broker at once with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Let the broker shut down in order, or kill it when that takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _format(self) -> None:
        options = ("format", f"--cluster-id={self._cluster_id}", "--config", str(self._config))
        command = self._java("kafka.tools.StorageTool", *options)
        with self._output.open("ab") as output:
            code = subprocess.run(command, stdout=output, stderr=output, timeout=START_SECONDS, check=False).returncode
        if code != 0:
            raise RuntimeError(f"Apache Kafka could not format its storage:\n{self._tail()}")

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return ["java", *JAVA_OPTIONS, "-cp", f"{self._libs}/*", main_class, *arguments]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._serves_clients():
            if process.poll() is not None:
                raise RuntimeError(f"Apache Kafka ended with code {process.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"Apache Kafka did not answer in {START_SECONDS:.0f} s:\n{self._tail()}")
            time.sleep(POLL_SECONDS)

    def _serves_clients(self) -> bool:
        """Ask for the cluster's metadata: it lists the broker once the controller lets it lead partitions."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(METADATA_REQUEST)
                reply = connection.recv(METADATA_REPLY.size, socket.MSG_WAITALL)
        except OSError:
            return False
        if len(reply) < METADATA_REPLY.size:
            return False
        _, _, live_brokers = METADATA_REPLY.unpack(reply)
        return bool(live_brokers)

    def _tail(self) -> str:
        return "\n".join(self._output.read_text(errors="replace").splitlines()[-TAIL_LINES:])


class ApacheKafkaCluster:
    """Several brokers that are one cluster: a record is acknowledged when most of them have it."""

    def __init__(self, libs: Path, data_dir: Path, count: int = 3) -> None:
        self.nodes = [ApacheKafka(libs, data_dir / str(number)) for number in range(count)]
        for number, node in enumerate(self.nodes, 1):
            node._node, node._cluster, node._cluster_id = number, self.nodes, self.nodes[0]._cluster_id

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.begin()
            for node in self.nodes:
                node.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()

    @property
    def bootstrap(self) -> str:
        """The addresses for clients."""
        return ",".join(node.bootstrap for node in self.nodes)
