"""Analytics beside a running stack: the tutorial as it stands, and what is done to bad ones."""

from __future__ import annotations

import csv
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.servers

README = Path(__file__).parents[2] / "agents/README.md"

DOUBLE = '''
from agents import per_reading

@per_reading("{inputs}", output="{{metric}}_x{factor}")
def {name}(reading):
    """Value × {factor}."""
    {line}
    return reading.value * {factor}
'''


class Site:
    """A stack, and the folder with its analytics."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.agents = folder / "stack/agents"
        self._folder = folder
        bin_folder = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**stack.environment, "PATH": bin_folder, "ISOTHERM_DATA_DIR": str(stack.data_dir)}

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def write(self, name: str, *, inputs: str = "kitchen/*", factor: int = 2, line: str = "pass") -> None:
        self.agents.mkdir(parents=True, exist_ok=True)
        (self.agents / f"{name}.py").write_text(DOUBLE.format(name=name, inputs=inputs, factor=factor, line=line))

    def enable(self, *names: str) -> None:
        ran = self.type(" & ".join(f"isotherm agent enable {name} --anyway" for name in names) + " & wait")
        assert sorted(ran.stdout.splitlines()) == sorted(f"{name} running" for name in names), ran.stderr

    def send(self, *values: float, device: str = "kitchen") -> None:
        lines = "\n".join(json.dumps({"n": f"{device}/t", "v": value}) for value in values)
        url = f"http://127.0.0.1:{self.stack.ports.http}/api/v1/readings"
        with urllib.request.urlopen(urllib.request.Request(url, lines.encode()), timeout=10) as answer:
            assert answer.status == 204

    def values(self, metric: str, device: str = "kitchen") -> list[float]:
        return [row["last"] for row in self.stack.json("query", device, metric, "--last", "10m", "--points", "10000")]

    def status(self, name: str) -> dict[str, Any]:
        """Return what the process says that is there now; one that was killed may have said something a moment ago."""
        ran = self.type("isotherm agent status --json")
        found = [
            one
            for one in json.loads(ran.stdout)["running"]
            if one["name"] == name and psutil.pid_exists(one.get("pid", os.getpid()))
        ]
        return found[0] if found else {}

    def running(self) -> dict[str, int]:
        """Return the analytics that run, with their process ids."""
        ran = self.type("isotherm agent status --json")
        found = json.loads(ran.stdout)["running"]
        return {one["name"]: one["pid"] for one in found if one["state"] == "running" and psutil.pid_exists(one["pid"])}

    def exported(self, pattern: str) -> list[list[str]]:
        """Return the device and the value of each reading that is stored of some series."""
        ran = self.stack.run("export", "-", "--series", pattern, "--last", "10m")
        return [[row["device"], row["last"]] for row in csv.DictReader(ran.stdout.splitlines())]

    def until(self, what: Callable[[], Any], seconds: float = 90.0) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, (self.stack.data_dir / "logs/agents.log").read_text()[-3000:]
            time.sleep(0.3)


class Webhook:
    """A far end that takes what it is sent, each key once."""

    def __init__(self) -> None:
        taken = self._taken = dict[str, dict[str, Any]]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken[self.headers["Idempotency-Key"]] = json.loads(body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alarms"

    def alarms(self) -> list[str]:
        """Return the alarms that were told of, one for each time."""
        return [told["alarm"] for delivery in list(self._taken.values()) for told in delivery["messages"]]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    thread = threading.Thread(target=hook.server.serve_forever)
    thread.start()
    yield hook
    hook.server.shutdown()
    thread.join()
    hook.server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with Stack(folder / "stack", "--devices", "4", hang_seconds="3") as stack:
        yield Site(stack, folder)


def test_the_tutorial_does_what_it_says(site: Site) -> None:
    steps = re.findall(r"^```(sh|python)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in steps] == ["sh", "python", "sh", "sh", "sh", "python", "sh", "sh"]
    (site.agents / "trend.py").unlink(missing_ok=True)
    site.until(lambda: len(site.values("temperature", "room-001")) > 3)
    for kind, block in steps:
        block = block.replace(".isotherm/", f"{site.stack.data_dir}/")
        if kind == "python" and "from agents.bench" in block:
            ran = site.type(f"python - <<'END'\n{block}\nEND")
            assert ran.returncode == 0, ran.stderr
        elif kind == "python":
            (site.agents / "trend.py").write_text(block)
        else:
            for line in block.splitlines():
                command = line.partition("  #")[0]
                if command.startswith("isotherm query"):
                    site.until(lambda: site.values("temperature_trend", "room-001"))
                ran = site.type(command)
                # Of those that run by default some may still be starting.
                assert ran.returncode == 0 or command == "isotherm agent status", (command, ran.stdout, ran.stderr)
    assert (site.agents.parent.parent / "trend.png").read_bytes().startswith(b"\x89PNG")
    assert len(site.values("temperature_trend", "room-001")) > 0
    site.until(lambda: site.values("temperature_f", "room-001"))
    with urllib.request.urlopen(f"http://127.0.0.1:{site.stack.ports.agents_health}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    for name in ("lag", "packs", "us_per_reading", "errors"):
        assert f'isotherm_analytic_{name}{{analytic="presence"}}' in metrics
    for command in (
        "agent disable fahrenheit",
        "agent disable anomaly",
        "rules remove hot",
        "rules remove gone",
        "notify remove desk",
    ):
        assert site.type(f"isotherm {command}").returncode == 0
    assert site.type(f"pytest -q -p no:cacheprovider {site.agents / 'test_trend.py'}").returncode != 127


def test_a_changed_file_is_picked_up_and_a_broken_one_is_refused(site: Site) -> None:
    site.write("change")
    site.enable("change")
    site.send(1, 2, 3)
    site.until(lambda: site.values("t_x2") == [2, 4, 6])

    site.write("change", line="return None if reading.value < 0 else reading.value / no_such_name")
    site.until(lambda: site.status("change").get("state") == "refused" or "no_such_name" in _log(site))
    assert "NameError" in _log(site)
    site.send(4)
    site.until(lambda: site.values("t_x2") == [2, 4, 6, 8])

    old = site.running()["change"]
    site.write("change", factor=3)
    site.until(lambda: site.running().get("change", old) != old)
    assert "a new process goes on" in _log(site)
    site.send(5)
    site.until(lambda: site.values("t_x3") == [15])
    assert site.type("isotherm agent disable change").returncode == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("return reading.", "SyntaxError"),
        ("while True: pass", "loop without end"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("import random; return random.random()", "depends on"),
    ],
)
def test_what_does_not_pass_its_trial_is_not_enabled(site: Site, line: str, said: str) -> None:
    site.write("bad", inputs="room-*/temperature", line=line)
    ran = site.type("isotherm agent enable bad")
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback (most" not in ran.stderr or "bad.py" in ran.stderr
    assert site.status("bad") == {}


def test_what_cannot_be_told_to_run_is_refused_with_the_reason(site: Site) -> None:
    site.write("lonely", inputs="nobody/*")
    for command, said in (
        ("isotherm agent enable lonely", "there is no series nobody/*"),
        ("isotherm agent enable lonely --set inputs=7 --anyway", "parameter inputs of lonely is 7"),
        ("isotherm agent enable lonely --set size=7 --anyway", "has no parameter 'size'"),
        ("isotherm agent enable no_such", "there is no analytic 'no_such'"),
        ("isotherm agent disable lonely", "lonely is not enabled"),
        ("isotherm agent new 2fast", "no name of an analytic"),
        ("isotherm agent new lonely", "already"),
    ):
        ran = site.type(command)
        assert ran.returncode == 1, command
        assert said in ran.stderr, ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_record_that_an_analytic_hangs_on_goes_to_rejects_and_the_others_through(site: Site) -> None:
    site.write("hang", inputs="attic/*", line="\n    while reading.value == 13: pass")
    site.write("beside", inputs="attic/*", factor=5)
    site.enable("hang", "beside")
    for value in (1, 13, 2):  # three packs
        site.send(value, device="attic")
    site.until(lambda: site.values("t_x5", "attic") == [5, 65, 10], seconds=5)  # who shares the pack is not held up
    site.until(lambda: site.values("t_x2", "attic") == [2, 4], seconds=60)
    [reject] = [one for one in site.stack.json("rejects", "list") if one["reason"] == "analytic"]
    assert "hung" in reject["detail"]
    assert site.stack.json("rejects", "replay")["stored"] == 1  # it is in the store already
    for name in ("hang", "beside"):
        assert site.type(f"isotherm agent disable {name}").returncode == 0


def test_killed_while_alarms_fire_each_is_raised_once_and_told_once_and_nothing_is_missing(
    site: Site, webhook: Webhook
) -> None:
    site.write("exact", inputs="oven-*/t", factor=7)
    site.enable("exact")
    assert (
        site.type(f"isotherm notify add hook --webhook {webhook.url} --severity major --window 2 --per-hour 600").returncode
        == 0
    )
    rule = "isotherm rules add hot --metric t --above 100 --hysteresis 10 --devices 'oven-*' --severity major --anyway"
    assert site.type(rule).returncode == 0
    names = {"alarms", "notifications", "exact"}
    site.until(lambda: site.running().keys() >= names)
    for number in range(60):
        site.send(50, 150, device=f"oven-{number}")
        if number in (20, 40):  # while what was sent a moment ago is on its way
            host = psutil.Process(site.stack.pid_of("agents"))
            workers = host.children(recursive=True)
            worker = next(one for one in workers if one.pid == site.status("alarms")["pid"])
            victims = [host, *workers] if number == 20 else [worker]
            victims[0].send_signal(signal.SIGKILL)
            assert psutil.wait_procs(victims, timeout=10)[1] == []  # what it has started ends with it
            site.until(lambda: site.running().keys() >= names)

    ovens = sorted(f"oven-{number}" for number in range(60))
    expected = {f"hot/{name}/t" for name in ovens}

    def all_are_raised() -> bool:
        found = {alarm["alarm"] for alarm in site.stack.json("alarms") if alarm["rule"] == "hot"}
        print("not raised yet:", sorted(expected - found), "and others:", sorted(found - expected))
        return found == expected

    site.until(all_are_raised)
    site.until(lambda: set(webhook.alarms()) == expected, seconds=60)
    assert sorted(webhook.alarms()) == sorted(expected)
    events = site.stack.run("tail", "events", "--json", "--no-follow", "--last", "10000").stdout.splitlines()
    told = {(one["source"], one.get("number", 0)): one for one in map(json.loads, events)}
    raised = [one["alarm"] for one in told.values() if one["kind"] == "alarm.raised" and one["rule"] == "hot"]
    assert sorted(raised) == sorted(expected)

    site.until(lambda: site.exported("oven-*/t_x7") == [[name, str(7.0 * value)] for name in ovens for value in (50, 150)])
    line = site.stack.json("ledger")["connectors"]["agent"]
    assert line["accepted"] == line["stored"] + line["duplicates"] + line["in_flight"]
    assert line["lost"] == 0
    for command in ("rules remove hot", "notify remove hook", "agent disable exact"):
        assert site.type(f"isotherm {command}").returncode == 0


def _log(site: Site) -> str:
    return site.stack.log_of("agents")
