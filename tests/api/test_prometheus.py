"""What Grafana and other programs for Prometheus ask for, and what Prometheus itself answered to the same queries."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import yaml

from dashboards.prometheus import app, engine
from isotherm.clock import iso, now_us
from isotherm.limits import HOUR, MILLISECOND, SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client as stores
from tests.api.conftest import Login
from tests.api.program import Answer, Program
from tests.api.record_promql import CASES, table
from tests.dashboards.client import Client
from tests.dashboards.people import register
from tests.dashboards.stack import Filler, Web
from tests.dashboards.test_access import PASSWORD

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
RECORDED = json.loads(CASES.read_text())
BEGIN = now_us() // SECOND - 1_300
"""When the recorded readings begin here, s: the store keeps single readings for two hours."""

HOURLY = 12
CROWD = engine.MAX_SERIES + 1
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def filler(settings: Settings) -> Filler:
    filler = Filler(settings)
    asyncio.run(fill(settings, filler))
    return filler


async def fill(settings: Settings, filler: Filler) -> None:
    """What Prometheus was given, a series that is slow, and one whose name Prometheus would not have allowed once."""
    now = now_us()
    for name, points in RECORDED["readings"].items():
        await filler.write({name.partition("/")[2]: [(BEGIN * SECOND + at * MILLISECOND, value) for at, value in points]})
    await filler.write(
        {"cellar/humidity": [(now - at * HOUR, 50.0 + at) for at in range(HOURLY, 0, -1)]}, {"cellar/humidity": "%RH"}
    )
    await filler.write({"cellar/bme280/pressure": [(now - at * SECOND, 1000.0) for at in (3, 2, 1)]})
    await filler.write({f"crowd-{number}/noise": [(now - SECOND, 1.0)] for number in range(CROWD)})
    async with stores.connected(settings) as redis:
        registry = Registry(redis)
        for name in RECORDED["readings"]:
            floor, device, _ = name.split("/")
            await registry.note([device])
            await registry.label(device, add=[f"floor={floor}"])
        await registry.add("cellar", type="logger")
        await registry.label("cellar", add=["wet", "floor.no=-1", "device=second"])
    await register(settings)


class Grafana:
    """Asks as Grafana's data source does: by POST where it can."""

    def __init__(self, program: Program, method: str = "POST") -> None:
        self._program = program
        self._method = method

    async def ask(self, path: str, method: str = "", **given: Any) -> Answer:
        said = urlencode({name.replace("match", "match[]"): value for name, value in given.items()}, doseq=True)
        at = f"/../prometheus/api/v1{path}"
        if (method or self._method) == "POST":
            return await self._program.send("POST", at, said.encode(), **FORM)
        return await self._program.send("GET", f"{at}?{said}", None)

    async def data(self, path: str, method: str = "", **given: Any) -> Any:
        answer = await self.ask(path, method, **given)
        assert answer.status == 200, answer.body
        assert answer.json["status"] == "success"
        return answer.json["data"]

    async def refused(self, path: str, status: int, kind: str, **given: Any) -> str:
        answer = await self.ask(path, **given)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/json"), answer.body
        assert (answer.json["status"], answer.json["errorType"]) == ("error", kind)
        return str(answer.json["error"])


@pytest.fixture
async def grafana(login: Login) -> Grafana:
    return Grafana(await login("vera", "read"))


def same(ours: list[dict[str, Any]], recorded: list[dict[str, Any]]) -> bool:
    if [one["labels"] for one in ours] != [one["labels"] for one in recorded]:
        return False
    pairs = [
        (left, right)
        for one, other in zip(ours, recorded, strict=True)
        for left, right in zip(one["values"], other["values"], strict=True)
    ]
    return all((left is None) == (right is None) and (left is None or close(left, right)) for left, right in pairs)


def close(left: str, right: str) -> bool:
    one, other = float(left), float(right)
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))


@pytest.mark.parametrize("case", RECORDED["answers"], ids=lambda case: case["query"])
async def test_a_query_is_answered_as_prometheus_answered_it(grafana: Grafana, case: Mapping[str, Any]) -> None:
    start, end = BEGIN + RECORDED["start"], BEGIN + RECORDED["end"]
    data = await grafana.data("/query_range", query=case["query"], start=start, end=end, step=RECORDED["step"])
    assert data["resultType"] == "matrix"
    ours = table(data["result"], BEGIN)
    assert any(one["values"] for one in case["series"]), "a case without values proves nothing"
    assert same(ours, case["series"]), (ours, case["series"])


async def test_the_health_check_of_grafana_succeeds(grafana: Grafana) -> None:
    data = await grafana.data("/query", query="1+1", time="1790000000")
    assert data == {"resultType": "scalar", "result": [1_790_000_000.0, "2"]}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_documented_requests_are_answered(grafana: Grafana, method: str) -> None:
    at = BEGIN + 1_150
    instant = await grafana.data("/query", method, query='temperature{device="room-0"}', time=at)
    assert instant["resultType"] == "vector"
    [one] = instant["result"]
    assert one["metric"] == {"__name__": "temperature", "device": "room-0", "floor": "1"}
    assert one["value"][0] == at and float(one["value"][1]) > 0
    times = {"start": iso(at * SECOND), "end": iso((at + 30) * SECOND, "seconds"), "step": "15s"}
    ranged = await grafana.data("/query_range", method, query='temperature{device="room-0"}', **times)
    assert [time for time, _ in ranged["result"][0]["values"]] == [at, at + 15, at + 30]
    series = await grafana.data("/series", method, match=['energy{floor="2"}', '{device="room-1"}'])
    assert [(one["__name__"], one["device"]) for one in series] == [
        ("energy", "room-1"), ("energy", "room-3"), ("temperature", "room-1"),
    ]  # fmt: skip
    assert await grafana.data("/labels", method, match="energy") == ["__name__", "device", "floor"]
    assert "floor.no" in await grafana.data("/labels", method)
    assert await grafana.data("/query_exemplars", method, query="energy") == []


async def test_names_units_and_what_program_this_is_can_be_asked_for(grafana: Grafana) -> None:
    assert await grafana.data("/label/floor/values", "GET") == ["1", "2"]
    assert await grafana.data("/label/__name__/values", "GET", match='{device="cellar"}') == ["bme280/pressure", "humidity"]
    assert await grafana.data("/label/nothing/values", "GET") == []
    assert await grafana.data("/label/U__floor_2e_no/values", "GET") == ["-1"]
    cut = await grafana.ask("/label/device/values", "GET", limit=2)
    assert (cut.json["data"], cut.json["warnings"]) == (["cellar", "crowd-0"], ["results truncated due to limit"])
    assert await grafana.data("/metadata", "GET", metric="humidity") == {
        "humidity": [{"type": "gauge", "help": "", "unit": "%RH"}]
    }
    assert len(await grafana.data("/metadata", "GET", limit=2)) == 2
    assert (await grafana.data("/status/buildinfo", "GET"))["version"] == app.COMPATIBLE
    assert await grafana.data("/rules", "GET") == {"groups": []}


@pytest.mark.parametrize("query", ['{"bme280/pressure"}', '{__name__="bme280/pressure"}', "U__bme280_2f_pressure"])
async def test_a_metric_of_any_name_is_found(grafana: Grafana, query: str) -> None:
    data = await grafana.data("/query", query=query)
    assert [one["metric"]["__name__"] for one in data["result"]] == ["bme280/pressure"]


async def test_a_device_s_labels_are_the_series_s(grafana: Grafana) -> None:
    [one] = await grafana.data("/series", match="humidity")
    assert one == {
        "__name__": "humidity", "device": "cellar", "exported_device": "second", "floor.no": "-1", "type": "logger",
        "unit": "%RH", "wet": "true",
    }  # fmt: skip
    assert (await grafana.data("/query", query='count(humidity{"floor.no"="-1", wet="true"})'))["result"]


async def test_a_value_of_a_slow_series_holds_until_the_next_but_one_is_due(grafana: Grafana) -> None:
    now = now_us() // SECOND
    data = await grafana.data("/query_range", query="humidity", start=now - 4 * 3600, end=now + 3 * 3600, step=600)
    [one] = data["result"]
    newest = max(time for time, _ in one["values"])
    assert [time for time, _ in one["values"]] == [now - 4 * 3600 + step * 600 for step in range(len(one["values"]))]
    assert now + 1800 <= newest < now + 3600, "the last reading is an hour old, and they are an hour apart"


async def test_rollups_answer_as_readings_do_where_steps_and_ranges_are_multiples_of_them(grafana: Grafana) -> None:
    start = (BEGIN + 400) // 60 * 60
    asked: dict[str, Any] = {"start": start, "end": start + 600, "step": 60}
    for function in ("avg", "min", "max", "sum", "count"):
        ranged = await grafana.data(
            "/query_range", query=f'{function}_over_time(temperature{{device="room-0"}}[2m])', **asked
        )
        for time, value in ranged["result"][0]["values"]:
            found = [
                reading
                for at, reading in RECORDED["readings"]["1/room-0/temperature"]
                if time - 120 < BEGIN + at / 1000 <= time
            ]
            expected = {"avg": sum(found) / len(found), "sum": sum(found), "count": len(found)}
            assert close(value, str(expected.get(function, (min if function == "min" else max)(found))))


async def test_every_reading_of_a_range_can_be_had(grafana: Grafana) -> None:
    data = await grafana.data("/query", query='temperature{device="room-0"}[1m]', time=BEGIN + 600)
    assert data["resultType"] == "matrix"
    expected = [
        [BEGIN + at / 1000, value] for at, value in RECORDED["readings"]["1/room-0/temperature"] if 540_000 < at <= 600_000
    ]
    assert [[time, float(value)] for time, value in data["result"][0]["values"]] == expected


@pytest.mark.parametrize(
    ("path", "given", "said"),
    [
        ("/query", {"query": ""}, "no expression found in input"),
        ("/query", {"query": "sum(temperature"}, "parse error at char 16: unexpected the end, expected ')'"),
        ("/query", {"query": "up + topk(3, temperature)"}, "char 6: the aggregation topk is not supported here"),
        ("/query", {"query": 'up{device=~"("}'}, "char 12: '(' is no regular expression"),
        ("/query", {"query": "up", "time": "yesterday"}, 'invalid parameter "time"'),
        ("/query", {"query": "up", "time": "1e99"}, 'invalid parameter "time"'),
        ("/query", {"query": "up", "timeout": "0"}, 'invalid parameter "timeout"'),
        ("/query_range", {"query": "up", "start": 1, "end": 2}, 'invalid parameter "step"'),
        ("/query_range", {"query": "up", "start": 1, "end": 2, "step": 0}, "zero or negative"),
        ("/query_range", {"query": "up", "start": 2, "end": 1, "step": 1}, "end timestamp must not be before start time"),
        ("/query_range", {"query": "up", "start": 0, "end": 1e6, "step": 1}, "exceeded maximum resolution of 11,000 points"),
        ("/query_range", {"query": "up[5m]", "start": 1, "end": 2, "step": 1}, "a range vector"),
        ("/query_range", {"query": "up", "step": 1}, 'invalid parameter "start"'),
        ("/series", {}, "no match[] parameter provided"),
        ("/series", {"match": "1+1"}, "is no selector"),
        ("/series", {"match": "{}"}, "a selector needs something"),
        ("/labels", {"start": 2, "end": 1}, "end timestamp"),
        ("/labels", {"limit": "many"}, 'invalid parameter "limit"'),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_as_prometheus_says_it(
    grafana: Grafana, path: str, given: dict[str, Any], said: str
) -> None:
    assert said in await grafana.refused(path, 400, "bad_data", **given)


async def test_what_cannot_be_answered_is_no_mistake_of_the_query(grafana: Grafana) -> None:
    assert "same labelset" in await grafana.refused(
        "/query", 422, "execution", query='abs({device="room-0"})', time=BEGIN + 1_100
    )
    assert await grafana.refused("/nowhere", 404, "not_found") == "Not Found"


async def test_a_token_that_may_read_may_ask_by_post_and_others_may_not(login: Login, web: Web) -> None:
    assert (await Grafana(await login("vera", "series:read")).data("/query", query="1+1"))["resultType"] == "scalar"
    other = Grafana(await login("anna", "alarms:read"))
    assert "series:read" in await other.refused("/query", 403, "forbidden", query="1+1")
    async with aiohttp.ClientSession() as client:
        assert "token" in await Grafana(Program(client, web.url)).refused("/query", 401, "unauthorized", query="1+1")
        wrong = Grafana(Program(client, web.url, "iso_guessed"))
        assert "over, or never was" in await wrong.refused("/query", 401, "unauthorized", query="1+1")


async def test_a_page_elsewhere_cannot_use_a_browser_s_session(web: Web) -> None:
    async with Client(web.url) as browser:
        await browser.log_in("vera", PASSWORD)
        path, form = "/api/prometheus/api/v1/query", "query=1%2B1"
        kind = FORM["Content-Type"]
        assert (await browser.ask("POST", path, form, origin="http://evil.example", content_type=kind)).status == 403
        assert (await browser.ask("POST", path, form, content_type=kind)).status == 200


async def test_a_form_of_another_kind_or_size_is_refused(login: Login) -> None:
    program = await login("vera", "read")
    at = "/../prometheus/api/v1/query"
    assert (await program.send("POST", at, b'{"query": "1+1"}')).status == 400
    assert (await program.send("POST", at, b"query=%ff" + b"&a=" * 2_000, **FORM)).status == 400
    assert (await program.send("POST", at, b"query=" + b"1" * 2**20, **FORM)).status == 413


def test_the_provisioning_file_asks_what_is_served() -> None:
    provisioned = yaml.safe_load((ROOT / "infra/grafana/provisioning/datasources/isotherm.yaml").read_text())
    [source] = provisioned["datasources"]
    assert (provisioned["apiVersion"], source["type"], source["access"]) == (1, "prometheus", "proxy")
    assert source["url"].endswith(app.PATH)
    assert source["jsonData"]["httpMethod"] == "POST"
    assert source["jsonData"]["prometheusVersion"] == app.COMPATIBLE
    assert source["jsonData"]["httpHeaderName1"] == "Authorization"
    assert source["secureJsonData"]["httpHeaderValue1"].startswith("Bearer $")


async def test_every_query_of_the_provisioned_dashboard_is_answered(grafana: Grafana) -> None:
    provider = yaml.safe_load((ROOT / "infra/grafana/provisioning/dashboards/isotherm.yaml").read_text())
    assert provider["providers"][0]["type"] == "file"
    board = json.loads((ROOT / "infra/grafana/dashboards/fleet.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) >= 3
    for query in queries:
        for variable, value in (("$__interval", "1m"), ("$metric", "temperature"), ("$device", "room-0|room-1")):
            query = query.replace(variable, value)
        data = await grafana.data("/query_range", query=query, start=BEGIN + 600, end=BEGIN + 1_200, step=60)
        assert data["result"], query
    for variable in board["templating"]["list"]:
        assert variable["query"]["query"].startswith("label_values(")


async def test_limits_are_of_the_answer_not_of_what_is_aggregated(grafana: Grafana) -> None:
    assert "expected at most 1,000" in await grafana.refused("/query", 422, "execution", query="noise")
    counted = await grafana.data("/query", query="count(noise)")
    assert counted["result"][0]["value"][1] == str(CROWD)
