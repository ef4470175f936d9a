"""Programs that use the client, against the web process."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from isotherm import rules
from isotherm.client import (
    AsyncClient,
    Client,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Rule,
    Unauthenticated,
    Unavailable,
    replace,
)
from isotherm.clock import now_us
from isotherm.limits import MINUTE
from isotherm.settings import Settings
from tests.api.conftest import HOT
from tests.client.conftest import Login, token_of
from tests.dashboards.stack import Web
from tests.support.ports import free_port

pytestmark = pytest.mark.servers


def test_importing_it_imports_nothing_heavy() -> None:
    program = (
        "import sys, isotherm.client;"
        "heavy = {'numpy', 'pyarrow', 'redis', 'panel', 'bokeh', 'pandas', 'aiokafka', 'fastapi', 'pydantic', 'asyncio'};"
        "sys.exit(f'imported {found}' if (found := heavy & set(sys.modules)) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_both_clients_can_do_the_same_and_a_rule_has_the_fields_of_a_rule() -> None:
    def public(kind: type) -> dict[str, object]:
        found = {name: one for name, one in inspect.getmembers(kind) if not name.startswith("_")}
        return {name: inspect.signature(one) for name, one in found.items() if name not in ("stream", "run", "items")}

    asynchronous = public(AsyncClient)
    asynchronous["close"] = asynchronous.pop("aclose")
    assert public(Client) == asynchronous
    kept = {one.name: (one.type, one.default) for one in msgspec.structs.fields(rules.Rule)}
    ours = {one.name: (one.type, one.default) for one in msgspec.structs.fields(Rule) if one.name != "etag"}
    assert ours == kept


def test_a_device_is_created_changed_as_it_was_seen_labelled_and_forgotten(login: Login) -> None:
    anna = login("anna", "read", "write")
    made = anna.create_device("pump-1", type="pump", labels=["floor=2", "wet"])
    assert (made.type, made.labels) == ("pump", frozenset({"floor=2", "wet"}))
    assert anna.device("pump-1") == made
    assert made.created.tzinfo is UTC
    with pytest.raises(PreconditionFailed):
        anna.create_device("pump-1")
    changed = anna.update_device(made, is_gateway=True)
    assert (changed.type, changed.is_gateway, changed.labels) == ("pump", True, made.labels)
    with pytest.raises(PreconditionFailed, match="read it again"):
        anna.update_device(made, type="valve")
    [listed] = anna.devices("pump-*")
    with pytest.raises(ValueError, match="has no ETag"):
        anna.update_device(listed, type="valve")
    assert anna.label_device("pump-1", add=["floor=3", "new"], remove=["wet"]).labels == {"floor=3", "new"}
    assert anna.create_device_token("pump-1")
    assert anna.device("pump-1").tokens == 1
    anna.revoke_device_tokens("pump-1")
    assert anna.attributes("pump-1") == []
    anna.delete_device("pump-1")
    with pytest.raises(NotFound):
        anna.device("pump-1")


def test_a_long_list_is_gone_through_page_by_page(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isotherm.client.exchange.PAGE", 2)
    assert [one.name for one in login("vera", "read").devices("room-*")] == [f"room-{number}" for number in range(5)]


def test_refusals_are_errors_with_field_value_and_rule(login: Login, web: Web) -> None:
    anna = login("anna", "read", "write")
    with pytest.raises(Invalid) as wrong:
        anna.create_device("pump-2", labels=["floor=2", "floor=3"])
    assert wrong.value.field == "labels"
    assert wrong.value.faults[0].rule == "one value for each key"
    with pytest.raises(Invalid) as impossible:
        anna.create_rule(Rule(id="damp", kind="threshold"))
    assert impossible.value.field == "metric"
    with pytest.raises(Invalid, match="is no series"):
        anna.series("room-1", last="1h")
    with pytest.raises(Forbidden, match="devices:write"):
        login("anna", "devices:read").create_device("pump-2")
    with Client(web.url) as stranger, pytest.raises(Unauthenticated):
        stranger.ledger()


def test_who_is_not_there_is_unavailable() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", patience=0.3) as client:
        with pytest.raises(Unavailable, match="does not answer"):
            client.ledger()
        with pytest.raises(Unavailable):
            next(client.stream("a/b", patience=0.3))
    with pytest.raises(ValueError, match="expected http"):
        Client("localhost:7300")


def test_history_comes_as_rows_columns_arrays_and_a_table(login: Login) -> None:
    vera = login("vera", "read")
    now = datetime.now(UTC)
    found = vera.series(["room-2/temperature", "no/where"], start=now - timedelta(hours=1), end=now + timedelta(minutes=1))
    assert len(found["no/where"]) == 0
    rows = found["room-2/temperature"]
    assert (rows.unit, len(rows)) == ("Cel", 60)
    first = next(iter(rows))
    assert (first.mean, first.count, first.width) == (rows.mean[0], 1, 0)
    assert abs(now - first.at) < timedelta(minutes=10)
    arrays = rows.numpy()
    assert arrays["mean"].tolist() == rows.mean
    assert arrays["time"].astype("int64").tolist() == rows.time
    table = vera.table("room-2/temperature", last="1h")
    assert table["mean"].to_pylist() == rows.mean
    few = vera.series("room-2/temperature", start=now_us() - 60 * MINUTE, points=5)["room-2/temperature"]
    assert sum(few.count) == 60
    assert len(few) <= 5
    with pytest.raises(ValueError, match="either how far back"):
        vera.series("room-2/temperature")


def test_newest_values_the_ledger_analytics_and_events(login: Login) -> None:
    vera = login("vera", "read")
    [latest] = vera.latest("room-1/*")
    assert (latest.device, latest.metric, latest.unit) == ("room-1", "temperature", "Cel")
    total = vera.ledger().total
    assert total.stored == total.accepted == 300
    assert vera.analytics() == []
    assert {one.kind for one in vera.events("room-1")} >= {"alarm.raised"}


def test_an_alarm_is_acknowledged_and_shelved(login: Login) -> None:
    otto = login("otto", "read", "write")
    [alarm] = otto.alarms("active", device="room-*")
    assert (alarm.key, alarm.value, alarm.acknowledged, alarm.cleared) == (HOT, 35.0, None, None)
    assert otto.acknowledge(alarm, "on my way")
    [seen] = otto.alarms()
    assert seen.acknowledged is not None
    assert (seen.acknowledged.by, seen.acknowledged.note) == ("otto", "on my way")
    assert otto.shelve(HOT, 60)
    assert [one.key for one in otto.alarms("shelved")] == [HOT]
    assert otto.unshelve(HOT)
    with pytest.raises(NotFound):
        otto.acknowledge([replace(alarm, key="hot/nobody/t")])


def test_a_rule_is_kept_changed_as_it_was_seen_and_removed(login: Login) -> None:
    otto = login("otto", "read", "write")
    made = otto.create_rule(Rule(id="damp", kind="threshold", metric="humidity", above=70.0))
    with pytest.raises(PreconditionFailed):
        otto.create_rule(made)
    changed = otto.update_rule(replace(made, above=80.0))
    with pytest.raises(PreconditionFailed):
        otto.update_rule(made)
    assert otto.rule("damp") == changed
    assert otto.update_rule(replace(made, etag="", above=60.0)).above == 60.0, "without an ETag, whatever is there"
    assert "damp" in [one.id for one in otto.rules()]
    assert otto.broken_rules() == []
    otto.delete_rule("damp")
    with pytest.raises(NotFound):
        otto.rule("damp")


def test_a_client_that_asks_too_often_waits_as_it_is_told(settings: Settings, web: Web) -> None:
    strict = settings.model_copy(update={"web_port": free_port(), "api_rate": 5.0, "api_burst": 2})
    token = token_of(settings, "vera", "read")
    with Web(strict) as busy, Client(busy.url, token) as client:
        assert [client.analytics() for _ in range(6)] == [[]] * 6


async def test_the_one_that_awaits_does_the_same(anna: AsyncClient) -> None:
    made = await anna.create_device("fan-1", labels=["wet"])
    assert (await anna.update_device(made, type="fan")).type == "fan"
    assert (await anna.label_device("fan-1", remove=["wet"])).labels == frozenset()
    assert [one.name async for one in anna.devices("fan-*")] == ["fan-1"]
    with pytest.raises(PreconditionFailed):
        await anna.update_device(made, type="pump")
    await anna.delete_device("fan-1")
    with pytest.raises(NotFound):
        await anna.device("fan-1")
    rows = (await anna.series("room-3/temperature", last="1h"))["room-3/temperature"]
    assert len(rows) == 60
    async with AsyncClient(f"http://127.0.0.1:{free_port()}", patience=0.3) as nobody:
        with pytest.raises(Unavailable):
            await nobody.ledger()
