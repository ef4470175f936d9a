"""Records what Prometheus itself answers, for test_prometheus.py to compare with.

``python -m tests.api.record_promql DIRECTORY``, where the programs prometheus and promtool are. Recorded with Prometheus
2.42, whose windows are closed at both ends; so no reading lies at an edge of one.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests.support.ports import free_port

CASES = Path(__file__).with_name("cases") / "promql.json"
BEGIN = 1_790_000_000
"""When the readings begin, s since the epoch; places in CASES are ms from there."""

START, END, STEP = 900, 1_200, 7
"""Of the queries, s from BEGIN. A step of less than 10 s is answered from readings, not from rollups."""

QUERIES = """
1 + 2 * 3 ^ 2 ^ 0.5 - -4 % 3
temperature
{__name__=~"temp.*", floor!="1"}
temperature{floor=~"1|2", device!~".*-0"}
temperature{colour=""} offset 1m
temperature offset -30s
avg_over_time(temperature[1m])
min_over_time(temperature[90s])
max_over_time(temperature[2m] offset 20s)
sum_over_time(temperature[45s])
count_over_time(temperature[100s])
last_over_time(temperature[3m])
rate(energy[2m])
increase(energy[5m])
delta(temperature[3m])
sum(temperature)
avg by (floor) (temperature)
min without (device) (temperature)
max by (device, nothing) ({device=~"room-.*"})
count(temperature) by (floor)
sum(rate(energy[3m])) by (floor) * 3600
temperature * 2 + 1
100 - temperature / 0
temperature > 21
21 >= temperature
temperature == bool 21.5
-temperature
abs(temperature - 21) ^ 2
ceil(temperature) % 4
sqrt(temperature - 21)
log2(energy)
sgn(temperature - 21)
sum(temperature > 22)
1 < bool 2
""".strip().splitlines()


def readings() -> dict[str, list[tuple[int, float]]]:
    """Return ``floor/device/metric`` → readings, (ms from BEGIN, value), 20 min of them; some with a silence or a reset."""
    dice = random.Random(8)
    found: dict[str, list[tuple[int, float]]] = {}
    for number in range(4):
        at, total, points, counter = dice.randrange(10_000), 500.0, [], []
        while at < 1_200_000:
            silent = number == 3 and 500_000 < at < 1_000_000
            if at % 1_000 and not silent:
                points.append((at, round(21 + dice.gauss(0, 1), 1)))
            total = dice.uniform(100, 200) if dice.random() < 0.02 else total + dice.uniform(0, 3)
            if at % 1_000:
                counter.append((at + 1, round(total, 2)))
            at += dice.choice([4_001, 9_003, 10_007, 15_011])
        found[f"{number % 2 + 1}/room-{number}/temperature"] = points
        found[f"{number % 2 + 1}/room-{number}/energy"] = counter
    return found


def record(programs: Path) -> dict[str, Any]:
    """Return the readings, and the queries with their answers: a value or none for each step."""
    given = readings()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "readings.txt"
        text.write_text(_openmetrics(given))
        data = Path(scratch) / "data"
        command: list[str | Path] = [programs / "promtool", "tsdb", "create-blocks-from", "openmetrics", text, data]
        subprocess.run(command, check=True, capture_output=True)
        (Path(scratch) / "prometheus.yml").write_text("{}")
        port = free_port()
        options = [f"--storage.tsdb.path={data}", f"--config.file={scratch}/prometheus.yml"]
        options += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=10y"]
        server = subprocess.Popen([programs / "prometheus", *options], stderr=subprocess.DEVNULL)
        try:
            answers = [{"query": query, "series": _asked(port, query)} for query in QUERIES]
        finally:
            server.terminate()
            server.wait(30)
    return {"readings": given, "start": START, "end": END, "step": STEP, "answers": answers}


def _openmetrics(given: dict[str, list[tuple[int, float]]]) -> str:
    lines = []
    for metric in ("energy", "temperature"):
        lines.append(f"# TYPE {metric} gauge")
        for series, points in given.items():
            floor, device, name = series.split("/")
            if name == metric:
                labels = f'{metric}{{device="{device}",floor="{floor}"}}'
                lines += [f"{labels} {value} {BEGIN + at / 1000:.3f}" for at, value in points]
    return "\n".join([*lines, "# EOF", ""])


def _asked(port: int, query: str) -> list[dict[str, Any]]:
    asked = urllib.parse.urlencode({"query": query, "start": BEGIN + START, "end": BEGIN + END, "step": STEP})
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query_range?{asked}", timeout=10) as answer:
                return table(json.load(answer)["data"]["result"], BEGIN)
        except URLError as error:
            if getattr(error, "code", 503) != 503:
                raise
            time.sleep(0.1)
    raise TimeoutError("Prometheus does not answer")


def table(result: list[dict[str, Any]], begin: float) -> list[dict[str, Any]]:
    """Return a result with a value or none for each step, ascending by labels."""
    found = []
    for one in result:
        values = {round(at - begin - START) // STEP: value for at, value in one["values"]}
        steps = range((END - START) // STEP + 1)
        found.append({"labels": one["metric"], "values": [values.get(step) for step in steps]})
    return sorted(found, key=lambda one: sorted(one["labels"].items()))


if __name__ == "__main__":
    CASES.write_text(json.dumps(record(Path(sys.argv[1])), indent=None, separators=(",", ":")) + "\n")
