"""The pipeline page on a real store and the embedded broker."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import expect

from isotherm import kafka, ledger
from isotherm.analytics import Analytics, Status
from isotherm.clock import now_us
from isotherm.kafka import Producer
from isotherm.limits import SECOND
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.topics import REJECTS
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import Browser
from tests.support.tansu import Tansu
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.servers]

SLOWLY = 20_000
"""For what is read every few seconds only, ms."""

SCRIPT = "<img src=x onerror=window.hit=1>"


@pytest.fixture
def broker() -> Iterator[Tansu]:
    with Tansu() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, broker: Tansu) -> Settings:
    return settings.model_copy(update={"kafka": broker.bootstrap})


async def report(settings: Settings, log_id: str, *, accepted: int, **rejected: int) -> None:
    account = ledger.Account(accepted=accepted)
    account.rejected.update(rejected)
    async with client.connected(settings) as redis:
        await ledger.report(redis, "test/1", log_id, account)


async def reject(settings: Settings, raw: bytes, reason: str = "malformed", device: str | None = "kitchen") -> None:
    producer = Producer(settings, "test")
    await producer.start()
    try:
        rejected = Rejected(reason, f"got {SCRIPT}, expected SenML", raw, device)
        record = RejectRecord.of([rejected], protocol="tcp", peer="192.168.1.17:5341", received_at=now_us() - 90 * SECOND)
        await producer.deliver(REJECTS, record.to_json(), key=device)
    finally:
        await producer.stop()


async def test_the_ledger_adds_up_and_moves(settings: Settings, filler: Filler, web: Web, browser: Browser) -> None:
    await kafka.ensure_topics(settings)
    log_id = await kafka.cluster_id(settings)
    await browser.open(web.url + "/pipeline")
    await expect(browser.page.locator(".verdict .good")).to_have_text("Nothing has been received yet")
    await filler.write({"kitchen/temperature": [(now_us(), 1.0), (now_us() + 1, 2.0)]})
    await report(settings, log_id, accepted=5, malformed=2)
    line = browser.page.locator("table[aria-label=Ledger] tbody tr").first
    await expect(line).to_have_text(
        re.compile("^test752203"), timeout=SLOWLY
    )  # received, accepted, rejected, stored, …, in flight
    await expect(browser.page.locator(".verdict .good")).to_have_text(
        "It adds up: 7 received, 5 accepted, 3 are in flight", timeout=SLOWLY
    )
    await filler.write({"kitchen/temperature": [(now_us(), 3.0)] * 3})
    await expect(line).to_have_text(re.compile("^test752500"), timeout=SLOWLY)
    await expect(browser.page.locator(".spark svg")).to_be_visible()
    await browser.page.locator("summary", has_text="By partition").click()
    await expect(browser.page.locator("table[aria-label=Partitions] tbody tr")).to_have_count(settings.partitions)
    assert browser.errors == []
    assert browser.outside == []


async def test_what_a_gone_log_held_is_said_to_be_lost(settings: Settings, web: Web, browser: Browser) -> None:
    await kafka.ensure_topics(settings)
    await report(settings, "another log", accepted=1_234)
    await browser.open(web.url + "/pipeline")
    await expect(browser.page.locator(".verdict .odd")).to_contain_text("1,234 readings are lost", timeout=SLOWLY)


async def test_analytics_tell_what_they_cost_and_what_is_wrong(settings: Settings, web: Web, browser: Browser) -> None:
    status = Status("anomaly", "1", "failing", now_us() + 3_600 * SECOND, partitions=(0, 1), lag=7, readings=120.0)
    async with client.connected(settings) as redis:
        problem = f"Traceback: {SCRIPT}"
        fields: dict[str, Any] = {name: getattr(status, name) for name in status.__struct_fields__}
        await Analytics(redis).report(Status(**{**fields, "us_per_reading": 0.93, "problem": problem}))
    await browser.open(web.url + "/pipeline")
    rows = browser.page.locator("table[aria-label=Analytics] tbody tr")
    failing = rows.filter(has_text="anomaly")
    for text in ("failing", "7", "120", "0.9"):
        await expect(failing).to_contain_text(text)
    await failing.locator("summary").click()
    await expect(failing.locator("pre")).to_have_text(problem)
    await expect(rows.filter(has_text="presence")).to_contain_text("not running")
    assert await browser.page.evaluate("window.hit") is None


async def test_rejects_are_shown_with_their_bytes_as_text_and_new_ones_come_by_themselves(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await kafka.ensure_topics(settings)
    log_id = await kafka.cluster_id(settings)
    await reject(settings, SCRIPT.encode(), device="kitchen")
    await report(settings, log_id, accepted=0, malformed=1)
    await browser.open(web.url + "/pipeline")
    table = browser.page.locator("table[aria-label='Newest rejects']")
    toggles = table.locator("[data-id]")
    await expect(toggles).to_have_count(1)
    for text in ("malformed", "tcp", "192.168.1.17:5341", "kitchen", f"got {SCRIPT}", "1 min ago"):
        await expect(table).to_contain_text(text)
    await toggles.first.click()
    await expect(table.locator("pre")).to_have_text(SCRIPT)

    await reject(settings, bytes(range(200, 232)) * 100, "type", None)
    await report(settings, log_id, accepted=0, malformed=1, type=1)
    await expect(toggles).to_have_count(2, timeout=SLOWLY)
    await browser.page.get_by_role("button", name="type 1").click()
    await expect(toggles).to_have_count(1)
    await toggles.first.click()
    await expect(table.locator("pre")).to_contain_text("00000000  c8 c9 ca")
    await expect(table.locator("pre")).to_contain_text("the first 2,000 of 3,200 bytes")
    assert await browser.page.evaluate("window.hit") is None
    assert browser.errors == []


async def test_without_kafka_only_what_needs_it_is_missing(
    settings: Settings, filler: Filler, broker: Tansu, web: Web, browser: Browser
) -> None:
    broker.__exit__()
    await filler.write({"kitchen/temperature": [(now_us(), 1.0)]})
    await browser.open(web.url + "/pipeline")
    await expect(browser.page.locator("#rejects .problem")).to_contain_text("does not answer", timeout=SLOWLY)
    await expect(browser.page.locator("table[aria-label=Ledger]")).to_contain_text("test")
    await expect(browser.page.locator("table[aria-label=Parts] tr", has_text="kafka")).to_contain_text(
        "not ready", timeout=SLOWLY
    )
    await expect(browser.page.locator("#pipeline .problem")).to_be_hidden()
    broker.__enter__()
    await kafka.ensure_topics(settings)
    await expect(browser.page.locator("#rejects .problem")).to_be_hidden(timeout=SLOWLY)
    await expect(browser.page.locator("#rejects")).to_contain_text("Nothing was refused")


async def test_the_page_outlives_the_store(
    settings: Settings, filler: Filler, web: Web, browser: Browser, valkey: Valkey
) -> None:
    await filler.write({"kitchen/temperature": [(now_us(), 1.0)]})
    await browser.open(web.url + "/pipeline")
    line = browser.page.locator("table[aria-label=Ledger] tbody tr").first
    await expect(line).to_contain_text("test")
    valkey.stop()
    await expect(browser.page.locator("#pipeline .problem")).to_be_visible()
    await expect(line).to_contain_text("test")
    valkey.start()
    await expect(browser.page.locator("#pipeline .problem")).to_be_hidden()


async def test_a_phone_needs_no_sideways_scrolling(settings: Settings, web: Web, browser: Browser) -> None:
    await kafka.ensure_topics(settings)
    await reject(settings, bytes(300), "type", "long-" * 20)
    await report(settings, await kafka.cluster_id(settings), accepted=10**12, malformed=1)
    await browser.page.set_viewport_size({"width": 360, "height": 780})
    await browser.open(web.url + "/pipeline")
    await browser.page.locator("[data-id]").first.click()
    await expect(browser.page.locator(".bytes pre")).to_contain_text("00000000")
    await browser.page.wait_for_function("document.documentElement.scrollWidth <= 360")  # styles come a moment later
