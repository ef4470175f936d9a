"""``isotherm bench``: figures of a local stack, taken with what the machine did beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import psutil
import typer

from isotherm import kafka, stackfile
from isotherm.cli.options import AsJson, DataDir, address
from isotherm.errors import IsothermError, StackError
from isotherm.local.stack import read_ledger
from isotherm.process import die_with_parent, raise_file_limit
from isotherm.settings import Settings

PROBE_SECONDS = 0.02
STORED_SECONDS = 120.0
SETTLE_SECONDS = 3.0
BATCHES = {"tcp": 4_000, "http": 1, "ws": 1_000, "mqtt": 100, "coap": 1}
"""Readings in a payload: a chunk of the stream, a request, a message; with MQTT, messages of one reading."""

CONNECTIONS = {"tcp": 1, "http": 128, "ws": 1, "mqtt": 8, "coap": 64}
"""Connections, or endpoints, that send as fast as they can."""

READINGS = {"http": 100_000, "mqtt": 200_000, "coap": 100_000}
"""Readings that are sent, where it is not a million."""

RATES = {"mqtt": 5_000, "coap": 1_000}
"""Readings a second while latency is measured, where it is not 50,000."""

START_SECONDS = 30.0

app = typer.Typer(no_args_is_help=True, help="Measure the local stack.")


@app.callback()
def main() -> None:
    """Measure the local stack."""


@app.command()
def ingest(
    protocol: Annotated[str, typer.Option(help="tcp, http, ws, mqtt or coap.")] = "tcp",
    readings: Annotated[
        int | None, typer.Option(help="Readings to send [1,000,000; mqtt 200,000; http, coap 100,000].", min=1000)
    ] = None,
    devices: Annotated[int, typer.Option(help="Devices that they belong to.", min=1)] = 2_000,
    batch: Annotated[
        int | None, typer.Option(help="Readings in a request or message [http, coap 1; ws 1,000].", min=1)
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            help="Readings a second while latency is measured; 0 leaves it out [50,000; mqtt 5,000; coap 1,000].", min=0
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long latency is measured.", min=1)] = 10.0,
    connections: Annotated[
        int, typer.Option(help="Quiet connections to weigh (not mqtt, coap); 0 leaves it out.", min=0)
    ] = 10_000,
    shards: Annotated[int, typer.Option(help="Connector processes that share the port (coap).", min=1, max=64)] = 2,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send as fast as readings are acknowledged, measure latency at a steady rate, and weigh connections.

    Prints readings a second until all are in the store, and CPU µs a reading, of all processes of the stack together and of
    each part; ms from sending a reading until it can be queried; bytes of the connector's memory a connection. The stack is
    the one that runs in the data directory; when there is none, one is started for it.
    """
    from simulator.load import LINKS

    if protocol not in LINKS:
        raise typer.BadParameter(f"--protocol is {protocol!r}, expected one of {', '.join(LINKS)}")
    if (limit := raise_file_limit()) < connections + 100:
        raise StackError(f"{connections} connections need as many open files; the limit is {limit} (ulimit -Hn)")

    async def measure(bench: _Bench) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "protocol": protocol,
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
        }
        if protocol == "coap":
            figures["shards"] = 1 + len(bench.shards)
        await bench.throughput(2_000, 10, 100)  # what is loaded when it is first needed is loaded now
        count = readings or READINGS.get(protocol, 1_000_000)
        figures |= await bench.throughput(count, devices, batch or BATCHES[protocol])
        steady = RATES.get(protocol, 50_000) if rate is None else rate
        if steady:
            figures |= await bench.latency(steady, devices, seconds)
        if connections and protocol not in ("coap", "mqtt"):
            figures |= await bench.weigh(connections)
        return figures

    settings = Settings.load(data_dir=data_dir)
    more = shards - 1 if protocol == "coap" and stackfile.read(settings.data_dir) is None else 0
    with _stack(settings, reuse_port=more > 0) as (settings, supervisor), _shards(settings, more) as processes:
        try:
            figures = asyncio.run(measure(_Bench(settings, supervisor, protocol, processes)))
        except ConnectionError as error:
            raise StackError(f"the load was not taken, so there is no figure: {error}") from error
    _print(figures, as_json)


@app.command()
def neighbours(
    visitors: Annotated[int, typer.Option(help="Well-behaved connections.", min=1)] = 50,
    seconds: Annotated[float, typer.Option(help="How long each case is measured.", min=1)] = 10.0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure how long well-behaved TCP devices wait for their acknowledgements beside one bad neighbour of each kind."""
    from simulator.load import MISBEHAVIOURS, TcpLink, visit

    async def measure(settings: Settings) -> dict[str, Any]:
        address = settings.host, settings.tcp_port
        await visit(TcpLink, *address, visitors, 2.0)
        figures: dict[str, Any] = {"alone_ms": _percentiles(await visit(TcpLink, *address, visitors, seconds))}
        for how in MISBEHAVIOURS:
            neighbour = await asyncio.create_subprocess_exec(*_NEIGHBOUR, how, settings.host, str(settings.tcp_port))
            try:
                figures[f"{how}_ms"] = _percentiles(await visit(TcpLink, *address, visitors, seconds))
            finally:
                neighbour.kill()
                await neighbour.wait()
        return figures

    with _stack(Settings.load(data_dir=data_dir)) as (settings, _):
        figures = asyncio.run(measure(settings))
    _print(figures, as_json)


@app.command()
def agents(
    names: Annotated[list[str] | None, typer.Argument(help="Analytics that run beside downsample.")] = None,
    rules: Annotated[int, typer.Option(help="Rules of alarms, over all devices.", min=0)] = 10_000,
    devices: Annotated[int, typer.Option(help="Devices that send.", min=1)] = 2_000,
    rate: Annotated[int, typer.Option(help="Readings a second.", min=1)] = 50_000,
    seconds: Annotated[float, typer.Option(help="How long.", min=1)] = 20.0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure what analytics cost beside the worker that stores: CPU µs a reading of each process, at a steady rate."""
    from isotherm.cli.bench_agents import enabled, ruled

    chosen = names or ["presence", "alarms", "anomaly"]

    async def measure(settings: Settings, supervisor: int) -> dict[str, Any]:
        async with ruled(settings, rules, devices), enabled(settings, chosen):
            bench = _Bench(settings, supervisor, "tcp")
            await bench.steady(rate, devices, SETTLE_SECONDS)
            return await bench.steady(rate, devices, seconds)

    figures: dict[str, Any] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2), "rules": rules}
    with _stack(Settings.load(data_dir=data_dir)) as (settings, supervisor):
        figures |= asyncio.run(measure(settings, supervisor))
    parts = figures["cpu_us_by_part"]
    figures["analytics_to_downsample"] = round(sum(parts.get(name, 0.0) for name in chosen) / parts["worker"], 2)
    _print(figures, as_json)


@app.command()
def commands(
    count: Annotated[int, typer.Option(help="Commands to the device of each protocol.", min=10)] = 200,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send commands over each protocol, and measure how soon the answers are back.

    Prints ms from the request to the REST API until its answer holds that of the device, p50, p95 and p99: TCP, WebSocket,
    HTTP (long polling), MQTT and CoAP (Observe), one after the other.
    """
    from rich.console import Console

    from isotherm.cli.bench_control import commands as measure

    with _stack(Settings.load(data_dir=data_dir)) as (settings, _), Console(stderr=True).status("") as status:
        figures = asyncio.run(measure(settings, count, status.update))
    _print({**_machine(), **figures}, as_json)


@app.command()
def configuration(
    devices: Annotated[int, typer.Option(help="Devices, each with a connection.", min=1)] = 10_000,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Configure very many connected devices with one rollout, and measure how soon all have reported."""
    from rich.console import Console

    from isotherm.cli.bench_control import configuration as measure

    if (limit := raise_file_limit()) < devices + 100:
        raise StackError(f"{devices} connections need as many open files; the limit is {limit} (ulimit -Hn)")
    with _stack(Settings.load(data_dir=data_dir)) as (settings, supervisor), Console(stderr=True).status("") as status:
        figures = asyncio.run(
            measure(settings, supervisor, devices, lambda what, done: status.update(f"{what}: {done:,} of {devices:,}"))
        )
    _print({**_machine(), **figures}, as_json)


@app.command()
def web(
    sessions: Annotated[int, typer.Option(help="Pages that are open at the same time.", min=1)] = 100,
    opened: Annotated[int, typer.Option(help="Pages that are opened and closed while memory is weighed.", min=20)] = 500,
    seconds: Annotated[float, typer.Option(help="How long latency is measured.", min=1)] = 20.0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure the pages: what opening one costs, many open at 1 Hz, what is left of closed ones, device to drawn."""
    from isotherm.cli.bench_web import WebBench, without_chromium

    async def measure(settings: Settings, supervisor: int) -> dict[str, Any]:
        bench = WebBench(settings, supervisor)
        await bench.sessions(1, 1.0)  # the devices are there from now on
        figures = await bench.opens()
        figures |= await bench.sessions(sessions, seconds)
        if (missing := without_chromium()) is None:
            figures |= await bench.drawn(seconds)
            figures |= await bench.history()
        else:
            figures["drawn"] = missing
        return figures | await bench.leaves_nothing(opened)

    figures: dict[str, Any] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
    with _stack(Settings.load(data_dir=data_dir)) as (settings, supervisor):
        figures |= asyncio.run(measure(settings, supervisor))
    _print(figures, as_json)


@app.command()
def store(as_json: AsJson = False) -> None:
    """Measure the series store by itself, on a Valkey of its own: memory a row, queries, commits, sealing."""
    from isotherm.cli.bench_store import measure

    _print({"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2), **asyncio.run(measure())}, as_json)


def _machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}


def _print(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(figures).decode())
        return
    for name, value in figures.items():
        print(f"{name:24} {value}")


_NEIGHBOUR = (
    sys.executable,
    "-c",
    "import asyncio, sys; from simulator.load import misbehave; how, host, port = sys.argv[1:]; "
    "asyncio.run(misbehave(how, host, int(port)))",
)


@contextlib.contextmanager
def _shards(settings: Settings, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Further CoAP connectors that share the port of the stack's, for the length of the block."""
    environment = {**os.environ, "ISOTHERM_DATA_DIR": str(settings.data_dir), "ISOTHERM_REUSE_PORT": "True"}
    command = [sys.executable, "-m", "isotherm", "connect", "coap"]
    shards = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        deadline = time.monotonic() + START_SECONDS
        for shard in shards:
            while not _listens(shard, settings.coap_port):
                if time.monotonic() > deadline or shard.poll() is not None:
                    raise StackError("a further CoAP connector did not start")
                time.sleep(PROBE_SECONDS)
        yield shards
    finally:
        for shard in shards:
            shard.terminate()
        for shard in shards:
            shard.wait()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    return any(one.laddr and one.laddr.port == port for one in psutil.Process(process.pid).net_connections("udp"))


@contextlib.contextmanager
def _stack(settings: Settings, *, reuse_port: bool = False) -> Iterator[tuple[Settings, int]]:
    """The settings and the supervisor's process id of the running stack, or of one of our own, for the length of the block.

    Args:
        settings: Of the caller.
        reuse_port: Let further connectors share the ports of a stack of our own.

    Raises:
        StackError: it did not start.
    """
    found = stackfile.read(settings.data_dir)
    if found is not None:
        yield settings, found.pid
        return
    with tempfile.TemporaryDirectory(prefix="isotherm-bench-") as directory:
        command = [sys.executable, "-m", "isotherm", "up", "--no-simulator", "--json", "--data-dir", directory]
        environment = os.environ | ({"ISOTHERM_REUSE_PORT": "True"} if reuse_port else {})
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGINT),
        ) as process:
            try:
                assert process.stdout is not None
                if not any('"event":"ready"' in line for line in process.stdout):
                    raise StackError("a stack for the measurement did not start")
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield Settings.load(data_dir=Path(directory)), process.pid
            finally:
                process.send_signal(signal.SIGINT)
                process.wait()


class _Bench:
    """Measures one connector of a running stack."""

    def __init__(
        self, settings: Settings, supervisor: int, protocol: str, shards: Sequence[subprocess.Popen[bytes]] = ()
    ) -> None:
        from simulator.load import LINKS

        self.shards = shards
        self._settings = settings
        self._processes = [supervisor, *(shard.pid for shard in shards)]
        self._supervisor = supervisor
        self._link = LINKS[protocol]
        self._connector = "http" if protocol == "ws" else protocol
        self._connections = CONNECTIONS[protocol]
        ports = {"tcp": settings.tcp_port, "coap": settings.coap_port}
        self._address = settings.host, ports.get(protocol, settings.http_port)
        if protocol == "mqtt":
            self._address = address(settings.mqtt)  # of the broker

    async def throughput(self, readings: int, devices: int, batch: int) -> dict[str, Any]:
        """Send as fast as readings are acknowledged, and wait until all are in the store."""
        from rich.progress import Progress

        from simulator.load import CoapLink, flood, lines, payloads, send

        work = payloads(lines(readings, devices, time.time()), batch)
        log_id = await kafka.cluster_id(self._settings)
        goal = await self._stored(log_id) + readings
        cpu = _cpu(self._processes)
        own, began = time.process_time(), time.monotonic()
        with Progress(transient=True) as bar:
            task = bar.add_task("acknowledged", total=readings)

            def progress(done: int) -> None:
                bar.update(task, completed=done)

            if self._link is CoapLink:
                sent = await flood(*self._address, work, self._connections, progress)
            else:
                sent = await send(self._link, *self._address, work, self._connections, progress)
            own = time.process_time() - own
            async with asyncio.timeout(STORED_SECONDS):
                while await self._stored(log_id) < goal:  # noqa: ASYNC110
                    await asyncio.sleep(PROBE_SECONDS)  # another process's progress: there is no event to wait for
        seconds = time.monotonic() - began
        spent = {name: used - cpu.get(name, 0.0) for name, used in _cpu(self._processes).items()}
        return {
            "readings": readings,
            "devices": devices,
            "batch": batch,
            "payloads_per_s": round(len(work) / sent.seconds),
            "bytes_per_reading": round(sent.payload_bytes / readings, 1),
            "acknowledged_per_s": round(readings / sent.seconds),
            "readings_per_s": round(readings / seconds),
            "cpu_us_per_reading": round(sum(spent.values()) / readings * 1e6, 3),
            "cpu_us_by_part": {name: round(used / readings * 1e6, 3) for name, used in sorted(spent.items()) if used > 0},
            "acknowledged_ms": _percentiles(sent.waits),
            "resent": sent.resent,
            "generator_cpu_us_per_reading": round(own / readings * 1e6, 3),
        }

    async def latency(self, rate: int, devices: int, seconds: float) -> dict[str, Any]:
        """Measure from sending a reading until a query would see it, while others send at a steady rate."""
        from simulator.load import keep_rate, line

        stop = asyncio.Event()
        sent_at: dict[int, float] = {}
        waits: list[float] = []
        probe = self._link()
        await probe.open(*self._address)

        async def watch() -> None:
            seen = -1
            async for newest in self._newest(PROBE_DEVICE):
                now = time.monotonic()
                waits.extend(now - sent_at.pop(i) for i in range(seen + 1, newest + 1))
                seen = newest
                if stop.is_set() and not sent_at:
                    return

        async with asyncio.TaskGroup() as tasks:
            load = tasks.create_task(keep_rate(self._link, *self._address, rate, devices, stop))
            watching = tasks.create_task(watch())
            began = time.monotonic()
            for number in range(int(seconds / PROBE_SECONDS)):
                await asyncio.sleep(began + number * PROBE_SECONDS - time.monotonic())
                sent_at[number] = time.monotonic()
                await probe.send(line(PROBE_DEVICE, number, time.time()))
                await probe.acknowledge(number + 1)
            stop.set()
            async with asyncio.timeout(STORED_SECONDS):
                await watching
        await probe.close()
        took = time.monotonic() - began
        return {
            "rate_per_s": round(load.result() / took),
            "latency_ms": _percentiles(waits),
            "probes": len(waits),
        }

    async def steady(self, rate: int, devices: int, seconds: float) -> dict[str, Any]:
        """Send at a steady rate, wait until all are in the store, and see what each part has used."""
        from simulator.load import keep_rate

        log_id = await kafka.cluster_id(self._settings)
        before = await self._stored(log_id)
        cpu, began, stop = _cpu(self._processes), time.monotonic(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            load = tasks.create_task(keep_rate(self._link, *self._address, rate, devices, stop))
            await asyncio.sleep(seconds)
            stop.set()
        sent, took = load.result(), time.monotonic() - began
        async with asyncio.timeout(STORED_SECONDS):
            while await self._stored(log_id) < before + sent:  # noqa: ASYNC110
                await asyncio.sleep(PROBE_SECONDS)  # another process's progress: there is no event to wait for
        spent = {name: used - cpu.get(name, 0.0) for name, used in _cpu(self._processes).items()}
        return {
            "devices": devices,
            "rate_per_s": round(sent / took),
            "cpu_us_per_reading": round(sum(spent.values()) / sent * 1e6, 3),
            "cpu_us_by_part": {name: round(used / sent * 1e6, 3) for name, used in sorted(spent.items()) if used > 0},
        }

    async def weigh(self, count: int) -> dict[str, Any]:
        """Open quiet connections that have each sent a reading, and see what the connector's memory grew by."""
        from rich.progress import track

        from simulator.load import line

        connector = self._process()
        before = connector.memory_info().rss
        links = []
        for number in track(range(count), "connecting", transient=True):
            link = self._link()
            await link.open(*self._address)
            await link.send(line(f"quiet-{number}", number, time.time()))
            links.append(link)
        for link in links:
            await link.acknowledge(1)
        await asyncio.sleep(SETTLE_SECONDS)
        after = connector.memory_info().rss
        for link in links:
            await link.close()
        await asyncio.sleep(SETTLE_SECONDS)
        return {"connections": count, "bytes_per_connection": round((after - before) / count)}

    async def _stored(self, log_id: str) -> int:
        line = (await read_ledger(self._settings, log_id)).get(self._connector)
        return line.stored if line else 0

    async def _newest(self, device: str) -> AsyncIterator[int]:
        """Yield the newest value of a device after each commit of its partition, when it has changed."""
        from isotherm.store import client, layout
        from isotherm.topics import partition_of

        partition = partition_of(device, self._settings.partitions)
        before = -1
        async with client.connected(self._settings) as redis:
            channel = redis.pubsub()
            await channel.subscribe(layout.live_channel(partition))
            async for _ in channel.listen():
                record = await redis.hget(layout.latest_key(partition), f"{device}/temperature")
                newest = int(np.frombuffer(record, dtype=layout.LATEST)["value"][0]) if record else -1
                if newest != before:
                    before = newest
                    yield newest

    def _process(self) -> psutil.Process:
        for process in psutil.Process(self._supervisor).children(recursive=True):
            if process.name() == self._connector:
                return process
        raise IsothermError(f"the {self._connector} connector does not run")


PROBE_DEVICE = f"probe-{os.urandom(3).hex()}"


def _percentiles(waits: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(waits, [50, 99]) * 1e3
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


def _cpu(roots: Sequence[int]) -> dict[str, float]:
    """Return the CPU seconds that each part of the stack has used, by its name, or that of its program.

    Args:
        roots: Process ids of the supervisor, whose children are the parts, and of parts that it did not start.
    """
    used: dict[str, float] = defaultdict(float)
    supervisor, *others = map(psutil.Process, roots)
    for process in [*supervisor.children(recursive=True), *others]:
        with contextlib.suppress(psutil.NoSuchProcess):
            used[process.name()] += sum(process.cpu_times()[:2])
    return dict(used)
