"""What the API says and does: devices, series, alarms, rules, the ledger."""

from __future__ import annotations

import asyncio
import csv
import io

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from isotherm.clock import iso, now_us
from isotherm.events import Event
from isotherm.limits import HOUR, MINUTE
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client as stores
from isotherm.store.events import EventLog
from tests.api.conftest import HOT, Login
from tests.dashboards.client import Client
from tests.dashboards.stack import Web
from tests.dashboards.test_access import PASSWORD, kernel

pytestmark = pytest.mark.servers


def last_hour() -> str:
    now = now_us()
    return f"start={iso(now - HOUR)}&end={iso(now + MINUTE)}"


async def test_a_device_that_was_only_heard_of_is_changed_as_it_was_seen(login: Login, settings: Settings) -> None:
    anna = await login("anna", "read", "write")
    async with stores.connected(settings) as redis:
        await Registry(redis).note(["heard-1"])
    etag = (await anna.get("/devices/heard-1")).headers["etag"]
    changed = await anna.put("/devices/heard-1", {"labels": ["floor=3"]}, if_match=etag)
    assert (changed.status, changed.json["labels"]) == (200, ["floor=3"])
    assert (await anna.put("/devices/heard-1", {"labels": []}, if_match=etag)).status == 412
    assert (await anna.delete("/devices/heard-1", if_match=changed.headers["etag"])).status == 204


async def test_a_device_is_registered_seen_changed_and_forgotten(login: Login, settings: Settings) -> None:
    anna = await login("anna", "read", "write")
    new = await anna.put("/devices/pump-7", {"type": "pump", "labels": ["floor=2", "wet"]})
    assert new.status == 201
    assert new.json["labels"] == ["floor=2", "wet"]
    seen = await anna.get("/devices/pump-7")
    assert seen.json == new.json
    assert (await anna.get("/devices/pump-7", if_none_match=seen.headers["etag"])).status == 304
    changed = await anna.put("/devices/pump-7", {"type": "pump", "labels": ["floor=3"]}, if_match=seen.headers["etag"])
    assert (changed.status, changed.json["labels"]) == (200, ["floor=3"])
    stale = await anna.put("/devices/pump-7", {"labels": ["floor=4"]}, if_match=seen.headers["etag"])
    assert stale.status == 412
    assert "read it again" in stale.detail
    assert (await anna.put("/devices/pump-7", {}, if_none_match="*")).status == 412
    token = await anna.post("/devices/pump-7/tokens")
    assert token.status == 201
    async with stores.connected(settings) as redis:
        found = await Registry(redis).by_token(token.json["token"])
        assert found is not None
        assert (found.name, found.labels) == ("pump-7", frozenset({"floor=3"}))
        assert (await anna.delete("/devices/pump-7/tokens")).status == 204
        assert await Registry(redis).by_token(token.json["token"]) is None
    assert (await anna.delete("/devices/pump-7")).status == 204
    assert (await anna.get("/devices/pump-7")).status == 404
    async with kernel(settings) as accounts:
        done = [entry.what for entry in await accounts.audit.read() if entry.target == "pump-7"]
    assert set(done) == {"add device", "change device", "new device token", "revoke device tokens", "remove device"}


@pytest.mark.parametrize(
    ("form", "field", "value"),
    [
        ({"typ": "pump"}, "typ", "pump"),
        ({"is_gateway": "yes"}, "is_gateway", "yes"),
        ({"labels": ["floor=2", "floor=3"]}, "labels", None),
        ({"labels": "wet"}, "labels", "wet"),
    ],
)
async def test_a_field_that_is_wrong_is_named_with_its_value_and_nothing_is_done(
    login: Login, form: dict[str, object], field: str, value: object
) -> None:
    anna = await login("anna", "read", "write")
    refused = await anna.put("/devices/never", form)
    assert refused.status == 422
    [fault] = refused.json["errors"]
    assert (fault["field"], fault["value"]) == (field, value)
    assert fault["rule"]
    assert (await anna.get("/devices/never")).status == 404


async def test_a_long_list_comes_in_pages_that_leave_nothing_out(login: Login) -> None:
    anna = await login("anna", "read", "write")
    for number in range(7):
        await anna.put(f"/devices/row-{number}", {"labels": ["row"]})
    seen, cursor = [], ""
    while True:
        page = (await anna.get(f"/devices?label=row&limit=3&cursor={cursor}")).json
        seen += [one["name"] for one in page["items"]]
        if len(seen) == 3:
            await anna.delete("/devices/row-0")  # what is behind the cursor does not move what is before it
        if page["next"] is None:
            break
        cursor = page["next"]
    assert seen == [f"row-{number}" for number in range(7)]
    assert (await anna.get("/devices?cursor=nonsense!")).status == 422
    assert [one["name"] for one in (await anna.get("/devices?name=row-[12]")).json["items"]] == ["row-1", "row-2"]


async def test_series_come_as_json_csv_and_arrow_and_say_the_same(login: Login) -> None:
    vera = await login("vera", "read")
    path = f"/series?series=room-2/temperature&series=room-3/temperature&{last_hour()}"
    rows = (await vera.get(path)).json["series"]
    assert list(rows) == ["room-2/temperature", "room-3/temperature"]
    assert rows["room-2/temperature"]["unit"] == "Cel"
    values = rows["room-2/temperature"]["mean"]
    assert len(values) == 60
    table = pa.ipc.open_stream((await vera.get(path, accept="application/vnd.apache.arrow.stream")).body).read_all()
    first = table.filter(pc.equal(table["series"], "room-2/temperature"))
    assert first["mean"].to_pylist() == values
    assert first["time"].cast(pa.int64()).to_pylist() == rows["room-2/temperature"]["time"]
    text = (await vera.get(path, accept="text/csv")).body.decode()
    listed = list(csv.reader(io.StringIO(text)))
    assert len(listed) == 61
    assert [float(row[2]) for row in listed[1:]] == values
    few = (await vera.get(path + "&points=5")).json["series"]["room-2/temperature"]
    assert sum(few["count"]) == 60
    assert len(few["time"]) <= 5


async def test_what_is_asked_for_wrongly_is_said(login: Login) -> None:
    vera = await login("vera", "read")
    for path, said in (
        (f"/series?series=room-2&{last_hour()}", "is no series"),
        ("/series?series=a/b&start=yesterday&end=2026-01-01", "expected a time"),
        ("/series?series=a/b&start=2026-01-02&end=2026-01-01", "expected an end after the start"),
        ("/series?series=a/b&start=2026-01-01", "Field required"),
    ):
        refused = await vera.get(path)
        assert refused.status == 422, path
        assert said in refused.detail
    assert (await vera.get(f"/series?series=no/where&{last_hour()}")).json["series"]["no/where"]["time"] == []


async def test_the_newest_values(login: Login) -> None:
    vera = await login("vera", "read")
    items = (await vera.get("/latest?series=room-1/*")).json["items"]
    assert [(one["series"], one["unit"]) for one in items] == [("room-1/temperature", "Cel")]


async def test_an_alarm_is_listed_acknowledged_once_and_shelved(login: Login, settings: Settings) -> None:
    otto = await login("otto", "read", "write")
    [alarm] = (await otto.get("/alarms?state=active&device=room-*")).json["items"]
    assert (alarm["key"], alarm["value"], alarm["acknowledged"]) == (HOT, 35.0, None)
    form = {"alarms": [{"key": HOT, "since": alarm["since"]}], "note": "on my way"}
    answers = await asyncio.gather(*(otto.post("/alarms/acknowledge", form, idempotency_key="1") for _ in range(5)))
    assert {one.status for one in answers} <= {200, 409}
    again = await otto.post("/alarms/acknowledge", form, idempotency_key="1")
    assert (again.status, again.headers["idempotency-replayed"]) == (200, "true")
    other = await otto.post("/alarms/acknowledge", form | {"note": "no"}, idempotency_key="1")
    assert other.status == 422
    assert "Idempotency-Key" in other.detail
    events = (await otto.get("/events?device=room-1")).json["items"]
    assert [one["kind"] for one in events].count("alarm.acknowledged") == 1
    [seen] = (await otto.get("/alarms")).json["items"]
    assert (seen["acknowledged"]["by"], seen["acknowledged"]["note"]) == ("otto", "on my way")
    assert (await otto.post("/alarms/shelve", {"key": HOT, "seconds": 60})).status == 200
    assert len((await otto.get("/alarms?state=shelved")).json["items"]) == 1
    assert (await otto.post("/alarms/unshelve", {"key": HOT})).status == 200
    unknown = {"alarms": [{"key": "hot/nobody/t", "since": 1}]}
    assert (await otto.post("/alarms/acknowledge", unknown)).status == 404


async def test_a_rule_is_kept_changed_as_it_was_seen_and_removed(login: Login) -> None:
    otto = await login("otto", "read", "write")
    rule = {"kind": "threshold", "metric": "humidity", "above": 70.0}
    kept = await otto.put("/rules/damp", rule)
    assert (kept.status, kept.json) == (201, {"id": "damp", **rule})
    seen = await otto.get("/rules/damp")
    assert (await otto.put("/rules/damp", rule | {"above": 80.0}, if_match=seen.headers["etag"])).status == 200
    assert (await otto.put("/rules/damp", rule, if_match=seen.headers["etag"])).status == 412
    assert (await otto.get("/rules/damp")).json["above"] == 80.0
    for body, field in (({"kind": "threshold"}, "metric"), (rule | {"hold": -1}, "hold"), (rule | {"id": "dry"}, "id")):
        refused = await otto.put("/rules/damp", body)
        assert refused.status == 422
        assert refused.json["errors"][0]["field"] == field
    assert (await otto.put("/rules/damp", [])).status == 422
    assert (await otto.delete("/rules/damp")).status == 204
    assert (await otto.get("/rules/damp")).status == 404


async def test_the_ledger_and_the_analytics(login: Login) -> None:
    vera = await login("vera", "system:read")
    total = (await vera.get("/ledger")).json["total"]
    assert total["stored"] == total["accepted"] == 300
    assert (await vera.get("/analytics")).json == {"items": [], "next": None}


async def test_what_is_too_large_or_too_deep_is_refused_and_the_process_goes_on(login: Login, web: Web) -> None:
    anna = await login("anna", "read", "write")
    large = await anna.put("/devices/large", {"type": "x" * 2**20})
    assert large.status == 413
    assert "at most 1048576 bytes" in large.detail
    for path in ("/devices/deep", "/rules/deep"):
        deep = await anna.send("PUT", path, b'{"kind":' + b"[" * 200_000)
        assert deep.status in (400, 422), deep.body[:200]
        assert deep.detail
    many = "&".join(f"series=room-{number}/temperature" for number in range(5))
    refused = await anna.get(f"/series?{many}&points=50000&{last_hour()}")
    assert refused.json["errors"][0]["rule"] == "at most 40000 points"
    assert (await anna.get("/alarms")).status == 200
    assert "Traceback" not in web.log


async def test_an_error_of_ours_is_said_to_be_one(settings: Settings, login: Login, web: Web) -> None:
    anna = await login("anna", "read")
    async with stores.connected(settings) as redis:
        await redis.hset("iso:{registry}:running", mapping={"broken/1": "no JSON"})
        failed = await anna.get("/analytics")
        await redis.hdel("iso:{registry}:running", "broken/1")
    assert failed.status == 500
    assert "error of ours" in failed.detail


async def test_what_is_not_there_is_a_problem_too(login: Login) -> None:
    vera = await login("vera", "read")
    assert (await vera.get("/nowhere")).detail == "Not Found"
    wrong = await vera.post("/devices/room-1", {})
    assert (wrong.status, wrong.headers["allow"]) == (405, "DELETE, GET, PUT")


@pytest.mark.parametrize(
    ("method", "path", "forms", "another"),
    [
        ("PUT", "/devices/race", [{"labels": [f"label-{number}"]} for number in range(8)], {"labels": []}),
        ("PUT", "/rules/race", [{"kind": "threshold", "metric": "t", "above": number} for number in range(8)], {"above": 9}),
        ("PATCH", "/users/racer", [{"role": "operator", "is_disabled": bool(number % 2)} for number in range(8)], {}),
        ("DELETE", "/devices/race", [None] * 8, {}),
    ],
)
async def test_of_changes_of_what_was_seen_at_the_same_time_one_is_made(
    login: Login, method: str, path: str, forms: list[dict[str, object] | None], another: dict[str, object]
) -> None:
    anna = await login("anna", "read", "write")
    if path == "/users/racer":
        assert (await anna.post("/users", {"name": "racer"})).status == 201
    elif method == "DELETE":
        await anna.put(path, {})
    else:
        new = await asyncio.gather(*(anna.put(path, form, if_none_match="*") for form in forms))
        assert sorted(one.status for one in new) == [201] + [412] * 7
        assert (await anna.put(path, {**(forms[0] or {}), **another})).status == 200
    seen = (await anna.get(path)).headers["etag"]
    answers = await asyncio.gather(*(anna.ask(method, path, form, if_match=seen) for form in forms))
    done = [one for one in answers if one.status < 300]
    assert len(done) == 1, [one.status for one in answers]
    assert {one.status for one in answers if one not in done} <= {404, 412}
    if method != "DELETE":
        assert (await anna.get(path)).json == done[0].json


async def test_of_a_change_that_leaves_no_admin_nothing_is_done(login: Login) -> None:
    anna = await login("anna", "read", "write")
    refused = await anna.patch("/users/anna", {"role": "viewer", "is_disabled": False})
    assert (refused.status, (await anna.get("/users/anna")).json["role"]) == (409, "admin")


@pytest.mark.parametrize(
    ("path", "form", "field", "value"),
    [
        ("/devices/odd", {"labels": ["a b"]}, "labels", None),
        ("/devices/odd", {"gateway": "room-1"}, "gateway", "room-1"),
        ("/devices/odd", {"gateway": "odd", "is_gateway": True}, "gateway", "odd"),
        ("/devices/odd", {"type": "\n"}, "type", "\n"),
        ("/devices/hub", {"is_gateway": False}, "is_gateway", False),
    ],
)
async def test_what_cannot_be_said_of_a_device_is_refused_with_field_value_and_rule(
    login: Login, path: str, form: dict[str, object], field: str, value: object
) -> None:
    anna = await login("anna", "read", "write")
    assert (await anna.put("/devices/hub", {"is_gateway": True})).status in (200, 201)
    assert (await anna.put("/devices/leaf", {"gateway": "hub"})).status in (200, 201)
    refused = await anna.put(path, form)
    assert refused.status == 422
    [fault] = refused.json["errors"]
    assert (fault["field"], fault["value"]) == (field, value)
    assert fault["rule"]
    assert (await anna.get("/devices/odd")).status == 404
    assert (await anna.get("/devices/hub")).json["is_gateway"]


@pytest.mark.parametrize(
    "body",
    [b"{garbage", b"\xff\xfe\x00", b'{"type":' + b"9" * 5_000 + b"}", b'{"type":' + b"[" * 5_000 + b"]" * 5_000 + b"}"],
)
async def test_a_body_that_cannot_be_read_is_said_to_be_that(login: Login, body: bytes) -> None:
    anna = await login("anna", "read", "write")
    refused = await anna.send("PUT", "/devices/unread", body)
    assert refused.status in (400, 422)
    assert refused.detail
    [fault] = refused.json["errors"]
    assert (fault["field"], "JSON" in fault["rule"]) == ("body", True)


async def test_a_refusal_is_short_however_deep_what_is_refused(login: Login) -> None:
    otto = await login("otto", "configuration:write")
    refused = await otto.send("PATCH", "/devices/room-1/configuration", b'{"values":{"a":' + b"[" * 900 + b"]" * 900 + b"}}")
    assert refused.status == 422
    assert len(refused.body) < 2_000


async def test_what_is_not_there_cannot_be_shelved(login: Login) -> None:
    otto = await login("otto", "alarms:write")
    assert (await otto.post("/alarms/shelve", {"key": "nowhere", "seconds": 60})).status == 404
    assert (await otto.post("/alarms/shelve", {"key": "hot", "seconds": 1})).status == 200, "all alarms of a rule"


async def test_events_come_in_pages_that_leave_nothing_out(login: Login, settings: Settings) -> None:
    vera = await login("vera", "system:read")
    async with stores.connected(settings) as redis:
        log = EventLog(redis, settings.partitions)
        for number in range(25):
            at = now_us() + number
            await log.append(Event(kind="device.online", time=at, device=f"paged-{number % 7}", message=str(number)))
        seen, cursor = [], ""
        while cursor is not None:
            page = (await vera.get(f"/events?limit=4&cursor={cursor}")).json
            seen += [one["message"] for one in page["items"] if one["device"].startswith("paged-")]
            await log.append(Event(kind="device.online", time=now_us(), device="later"))
            cursor = page["next"]
    assert seen == [str(number) for number in reversed(range(25))]
    one = (await vera.get("/events?limit=2&device=paged-3")).json
    rest = (await vera.get(f"/events?device=paged-3&cursor={one['next']}")).json
    assert [event["message"] for event in one["items"] + rest["items"]] == ["24", "17", "10", "3"]
    for cursor in ("none", "99:1-1", "0:1", "0:" + "9" * 30 + "-1"):
        assert (await vera.get(f"/events?cursor={cursor}")).json["errors"][0] == {
            "field": "cursor", "value": cursor, "rule": "`next` of a page, as it was",
        }  # fmt: skip


async def test_where_virtual_hosts_are_off_it_is_said_how_to_have_them(login: Login, web: Web) -> None:
    anna = await login("anna", "read", "write")
    for answer in (await anna.get("/hosts"), await anna.get("/hosts/lab"), await anna.delete("/hosts/lab")):
        assert answer.status == 409
        assert "virtual hosts are off: set ISOTHERM_HOSTS to podman" in answer.detail
    async with Client(web.url) as browser:
        await browser.log_in("anna", PASSWORD)
        page = await browser.get("/admin/hosts")
    assert (page.status, "Virtual hosts are off: set ISOTHERM_HOSTS to podman" in page.text) == (200, True)
    assert "Create a host" not in page.text
