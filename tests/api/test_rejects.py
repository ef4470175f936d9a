"""What was refused, as programs see it: page by page, byte by byte, and taken in after all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import pytest

from isotherm import kafka as kafka_kernel
from isotherm.clock import iso, now_us
from isotherm.limits import SECOND
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.topics import READINGS, REJECTS
from tests.api.broker import kafka as kafka
from tests.api.conftest import Login
from tests.dashboards.test_access import kernel

pytestmark = pytest.mark.servers

COUNT = 900
"""Of two partitions; more than are read of one at a time."""

GOOD = b'[{"n":"temperature","v":21.5}]'
BINARY = b"\x00\xff\x10"
BEGAN = now_us()


def reject(raw: bytes, number: int = 0, *, reason: str = "malformed", size: int | None = None) -> bytes:
    """Return a reject; the greater its number, the later it was received."""
    made = RejectRecord.of(
        [Rejected(reason, f"number {number}", raw, size=size)],
        protocol="tcp" if number % 2 else "mqtt",
        peer="192.0.2.7:4711",
        received_at=BEGAN + (number - COUNT) * SECOND,
        form="senml-json",
        device=f"room-{number % 4}",
    )
    return made.to_json()


@pytest.fixture(scope="module")
def ids(settings: Settings) -> dict[str, str]:
    """Give ids of some rejects that differ from the many."""
    return asyncio.run(fill(settings))


async def fill(settings: Settings) -> dict[str, str]:
    producer = kafka_kernel.Producer(settings, "a-test")
    await producer.start()
    try:
        await asyncio.gather(
            *(producer.deliver(REJECTS, reject(b"junk", number), partition=number % 2) for number in range(COUNT))
        )
        special = {
            "good": reject(GOOD, 1),
            "foreign": reject(b"T=21.5"),
            "binary": reject(BINARY),
            "cut": reject(b"x" * 10, size=100_000),
            "analytic": reject(GOOD, reason="analytic"),
        }
        for value in special.values():
            await producer.deliver(REJECTS, value, partition=2)
        return {name: f"2/{offset}" for offset, name in enumerate(special)}
    finally:
        await producer.stop()


async def all_pages(program: Any, query: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    cursor = ""
    while True:
        page = (await program.get(f"/rejects?{query}&cursor={cursor}")).json
        found += page["items"]
        if (cursor := page["next"]) is None:
            return found


async def test_all_of_them_come_page_by_page_newest_first(ids: dict[str, str], login: Login) -> None:
    vera = await login("vera", "rejects:read")
    found = [one for one in await all_pages(vera, "limit=130") if one["id"] not in ids.values()]
    assert len({one["id"] for one in found}) == len(found) == COUNT
    assert [one["detail"] for one in found] == [f"number {number}" for number in reversed(range(COUNT))]
    assert found[0] == {
        "id": f"1/{COUNT // 2 - 1}",
        "reason": "malformed",
        "detail": f"number {COUNT - 1}",
        "protocol": "tcp",
        "peer": "192.0.2.7:4711",
        "device": "room-3",
        "received": iso(BEGAN - SECOND),
        "size": 4,
        "is_whole": True,
        "count": 1,
        "format": "senml-json",
        "is_replayed": False,
    }


async def test_those_that_are_meant_are_found_wherever_they_are(ids: dict[str, str], login: Login) -> None:
    vera = await login("vera", "rejects:read")
    analytic = await all_pages(vera, "reason=analytic")
    assert [one["id"] for one in analytic] == [ids["analytic"]]
    some = await all_pages(vera, f"device=room-2&protocol=mqtt&since={iso(BEGAN - 100 * SECOND)}")
    assert [one["detail"] for one in some] == [f"number {number}" for number in range(COUNT - 2, COUNT - 101, -4)]
    for query, field in (("cursor=none", "cursor"), ("since=yesterday", "since"), ("limit=0", "limit")):
        refused = await vera.get(f"/rejects?{query}")
        assert (refused.status, refused.json["errors"][0]["field"]) == (422, field)


async def test_one_is_shown_with_its_bytes(ids: dict[str, str], login: Login) -> None:
    vera = await login("vera", "rejects:read")
    good, binary = [(await vera.get(f"/rejects/{ids[name]}")).json for name in ("good", "binary")]
    assert (good["text"], good["base64"]) == (GOOD.decode(), None)
    assert (binary["text"], base64.b64decode(binary["base64"])) == (None, BINARY)
    original = await vera.get(f"/rejects/{ids['binary']}/original")
    assert (original.body, original.headers["content-type"]) == (BINARY, "application/octet-stream")
    assert "attachment" in original.headers["content-disposition"]
    for absent in ("2/999", "99999/0"):
        assert (await vera.get(f"/rejects/{absent}")).status == 404


async def test_one_is_taken_in_after_all_once(ids: dict[str, str], login: Login, settings: Settings) -> None:
    async def readings() -> int:
        async with kafka_kernel.Reader(settings) as reader:
            return sum(end for _, end in (await reader.ends(READINGS)).values())

    otto = await login("otto", "rejects:read", "rejects:write")
    path, before = f"/rejects/{ids['good']}", await readings()
    replayed = await otto.post(f"{path}/replay", {}, idempotency_key="once")
    assert replayed.json == {"accepted": 1, "rejected": 0, "errors": []}
    assert (await otto.post(f"{path}/replay", {}, idempotency_key="once")).json == replayed.json
    assert await readings() == before + 1
    assert (await otto.get(path)).json["is_replayed"]
    refused = await otto.post(f"{path}/replay", {})
    assert refused.status == 409
    assert "replayed before" in refused.detail
    assert (await otto.post(f"{path}/replay", {"again": True})).json["accepted"] == 1
    async with kernel(settings) as accounts:
        noted = [entry.detail for entry in await accounts.audit.read() if entry.target == ids["good"]]
    assert noted == ["1 readings accepted, 0 refused"] * 2


async def test_one_may_be_read_as_another_format(ids: dict[str, str], login: Login) -> None:
    otto = await login("otto", "rejects:write")
    path = f"/rejects/{ids['foreign']}/replay"
    strange = await otto.post(path, {"format": "hieroglyphs"})
    assert strange.status == 422
    assert "hieroglyphs" in strange.detail
    still = await otto.post(path, {})
    assert (still.json["accepted"], still.json["rejected"]) == (0, 1)
    assert "malformed" in still.json["errors"][0]


async def test_what_cannot_be_replayed_is_refused(ids: dict[str, str], login: Login) -> None:
    otto = await login("otto", "rejects:write")
    for name, why in (("cut", "only 10 were kept"), ("analytic", "it is stored")):
        refused = await otto.post(f"/rejects/{ids[name]}/replay", {"again": True})
        assert refused.status == 409
        assert why in refused.detail
    assert (await otto.post("/rejects/0/99999/replay", {})).status == 404
    bad = await otto.post(f"/rejects/{ids['good']}/replay", {"device": "a b"})
    assert (bad.status, bad.json["errors"][0]["field"]) == (422, "device")
    vera = await login("vera", "rejects:read", "rejects:write")
    assert (await vera.post(f"/rejects/{ids['good']}/replay", {"again": True})).status == 403, "an operator's business"
