"""The device page in a real browser: several metrics, silences, alarms, attributes, presence, downloads."""

import asyncio
import csv
import io
import math
import re
import urllib.parse
import urllib.request
from typing import Any

import pytest
from playwright.async_api import expect

from isotherm.alarms.row import AlarmRow
from isotherm.clock import now_us
from isotherm.events import Event
from isotherm.limits import MINUTE, SECOND
from isotherm.settings import Settings
from tests.dashboards.beside import register, write_alarm, write_attribute, write_presence
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import Browser

pytestmark = [pytest.mark.browser, pytest.mark.servers]

PAGE = "/device?id=room-1"
UNITS = {"room-1/temperature": "Cel", "room-1/dew-point": "Cel", "room-1/humidity": "%RH", "room-1/pressure": "hPa"}
LENGTH = "name => Bokeh.documents[0].get_model_by_name(name)?.get_length() ?? 0"
COLUMN = "([name, column]) => Array.from(Bokeh.documents[0].get_model_by_name(name).get_column(column)).map(String)"
AXES = """() => { const plot = Bokeh.documents[0].get_model_by_name("live-plot")
  const right = plot.right.find(one => one.y_range_name)
  return [plot.left[0].axis_label.text, right?.visible ? right.axis_label.text : null] }"""
TIPS = """() => { const found = []
  const walk = node => { if (node.shadowRoot) walk(node.shadowRoot); for (const child of node.children ?? []) walk(child)
    if (node.classList?.contains("bk-Tooltip")) found.push((node.shadowRoot ?? node).textContent) }
  walk(document.body); return found.join(" ") }"""


async def write_metrics(filler: Filler, count: int = 20) -> int:
    now = now_us()
    values = {name: [(now - (count - 1 - number) * SECOND, 20.0 + number) for number in range(count)] for name in UNITS}
    await filler.write(values, UNITS)
    return now


def metric(browser: Browser, name: str) -> Any:
    return browser.page.get_by_role("button", name=re.compile(rf"^{name}\b"))


async def has_points(browser: Browser, source: str, count: int) -> None:
    await browser.page.wait_for_function(f"name => ({LENGTH})(name) === {count}", arg=source)


async def test_metrics_of_one_unit_share_an_axis_and_of_two_have_one_each(
    filler: Filler, web: Web, browser: Browser
) -> None:
    await write_metrics(filler)
    await browser.open(f"{web.url}{PAGE}&metric=temperature")
    await has_points(browser, "live-points", 20)
    await metric(browser, "dew-point").click()
    await has_points(browser, "live-points-2", 20)
    assert await browser.page.evaluate(AXES) == ["°C", None]
    await metric(browser, "humidity").click()
    await has_points(browser, "live-points-3", 20)
    assert await browser.page.evaluate(AXES) == ["°C", "humidity, % RH"]
    await has_points(browser, "history-points-3", 20)
    assert browser.errors == []


async def test_a_third_unit_is_refused_with_the_reason(filler: Filler, web: Web, browser: Browser) -> None:
    await write_metrics(filler)
    await browser.open(f"{web.url}{PAGE}&metric=temperature&metric=humidity")
    await has_points(browser, "live-points-2", 20)
    await metric(browser, "pressure").click()
    await expect(browser.page.locator("#head .note")).to_contain_text("°C and % RH: take one away before you add hPa")
    await expect(metric(browser, "pressure")).to_have_attribute("aria-pressed", "false")
    await metric(browser, "humidity").click()
    await metric(browser, "pressure").click()
    await expect(metric(browser, "pressure")).to_have_attribute("aria-pressed", "true")
    await expect(browser.page.locator("#head .note")).to_be_empty()


async def test_the_address_says_what_is_shown_and_shows_it_again(filler: Filler, web: Web, browser: Browser) -> None:
    await write_metrics(filler)
    await browser.open(f"{web.url}{PAGE}&metric=humidity")
    await metric(browser, "dew-point").click()
    await browser.page.wait_for_url(re.compile("metric=humidity&metric=dew-point"))
    await browser.open(browser.page.url)
    await expect(browser.page.locator("#head [aria-pressed=true]")).to_have_count(2)
    await has_points(browser, "live-points-2", 20)


async def test_a_metric_that_is_taken_away_is_drawn_no_more(filler: Filler, web: Web, browser: Browser) -> None:
    now = await write_metrics(filler)
    await browser.open(f"{web.url}{PAGE}&metric=temperature&metric=dew-point")
    await has_points(browser, "live-points-2", 20)
    await metric(browser, "dew-point").click()
    await has_points(browser, "live-points-2", 0)
    await filler.write({name: [(now + SECOND, 1.0)] for name in ("room-1/temperature", "room-1/dew-point")})
    await has_points(browser, "live-points", 21)
    assert await browser.page.evaluate(LENGTH, "live-points-2") == 0
    await metric(browser, "temperature").click()
    await expect(browser.page.locator("#head .note")).to_have_text("A chart shows at least one metric.")


async def test_a_silence_is_a_gap_in_both_charts(filler: Filler, web: Web, browser: Browser) -> None:
    now = now_us()
    heard = [*range(250, 190, -1), *range(60, 0, -1)]
    await filler.write({"room-1/temperature": [(now - ago * SECOND, 20.0) for ago in heard]}, UNITS)
    await browser.open(web.url + PAGE)
    await has_points(browser, "live-points", len(heard) + 1)
    values = await browser.page.evaluate(COLUMN, ["live-points", "value"])
    assert [place for place, value in enumerate(values) if value == "NaN"] == [60]
    await has_points(browser, "history-points", len(heard) + 1)
    means = [float(value) for value in await browser.page.evaluate(COLUMN, ["history-points", "mean"])]
    assert [place for place, value in enumerate(means) if math.isnan(value)] == [60]


async def test_alarms_are_marked_and_listed_and_told_under_the_pointer(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    now = await write_metrics(filler, 120)
    key, since = "hot/room-1/temperature", now - 30 * MINUTE
    common = {"device": "room-1", "alarm": key, "since": since, "severity": "minor"}
    past = [
        Event(kind="alarm.raised", time=since, message="it was <b>hot</b>", **common),  # type: ignore[arg-type]
        Event(kind="alarm.cleared", time=since + 5 * MINUTE, message="over", **common),  # type: ignore[arg-type]
    ]
    row = AlarmRow(rule="hot", kind="threshold", device="room-1", metric="temperature", severity="critical")
    row.since, row.message = now - 100 * SECOND, "<img src=x onerror=window.hit=1> is hot"
    await write_alarm(settings, row, past)
    await browser.open(f"{web.url}{PAGE}&metric=temperature")
    rows = browser.page.locator("#details tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_contain_text(re.compile("critical.*is hot.*active"))
    await expect(rows.nth(1)).to_contain_text(re.compile("minor.*it was <b>hot</b>.*5 min.*cleared"))
    assert await browser.page.evaluate(LENGTH, "alarms") == 2
    await has_points(browser, "live-points", 120)
    box = await browser.page.locator("#live .bk-Figure").bounding_box()
    assert box is not None
    await browser.page.mouse.move(box["x"] + box["width"] * 0.85, box["y"] + 100)
    await browser.page.wait_for_function(f"() => ({TIPS})().includes('temperature')")
    assert "is hot" not in await browser.page.evaluate(TIPS), "it would lie over the value"
    await browser.page.mouse.move(box["x"] + box["width"] * 0.85, box["y"] + 12)
    await browser.page.wait_for_function(f"() => ({TIPS})().includes('is hot')")

    row.cleared = now_us()
    await write_alarm(settings, row)
    await expect(rows.nth(0)).to_contain_text("cleared")
    assert await browser.page.evaluate("window.hit") is None
    assert browser.errors == []


async def test_names_and_units_are_what_they_say_and_nothing_more(filler: Filler, web: Web, browser: Browser) -> None:
    units = {"room-1/constructor": r"$$\frac{1}{2}$$", "room-1/toString": "<b>" + "x" * 28, "room-1/valueOf": "V"}
    await filler.write({name: [(now_us(), 3.5)] for name in units}, units)
    await browser.page.set_viewport_size({"width": 360, "height": 780})
    await browser.open(f"{web.url}{PAGE}&metric=constructor&metric=toString")
    await has_points(browser, "live-points-2", 1)
    assert await browser.page.evaluate(AXES) == [rf"constructor, {units['room-1/constructor']}", "toString, <b>" + "x" * 28]
    kind = "() => Bokeh.documents[0].get_model_by_name('live-plot').left[0].axis_label.type"
    assert await browser.page.evaluate(kind) == "PlainText", "and not TeX"
    for name, pressed in (("constructor", "true"), ("toString", "true"), ("valueOf", "false")):
        await expect(metric(browser, name)).to_have_attribute("aria-pressed", pressed)
    assert await browser.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.errors == []


async def test_presence_registry_and_attributes_are_shown_as_text(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    await write_metrics(filler)
    await write_presence(settings, {"room-1": "late"}, cadence=5 * SECOND)
    await register(settings, "room-1", type="climate", gateway="gw-1", labels=["floor=3"])
    await write_attribute(settings, "room-1", "vendor", "<script>window.hit=1</script>")
    await browser.open(web.url + PAGE)
    await expect(browser.page.locator("#head .pill")).to_have_text("late, usually every 5 s")
    for text in ("climate", "via gw-1", "floor=3"):
        await expect(browser.page.locator("#head .tag", has_text=text)).to_be_visible()
    await expect(browser.page.locator("#details tr", has_text="vendor")).to_contain_text("<script>window.hit=1</script>")
    await write_presence(settings, {"room-1": "offline"}, cadence=5 * SECOND)
    await expect(browser.page.locator("#head .pill")).to_have_text("offline, usually every 5 s")
    assert await browser.page.evaluate("window.hit") is None


async def test_what_is_shown_can_be_had_as_a_file(filler: Filler, web: Web, browser: Browser) -> None:
    await write_metrics(filler)
    await browser.open(f"{web.url}{PAGE}&metric=temperature&metric=humidity")
    await has_points(browser, "history-points-2", 20)
    async with browser.page.expect_download() as coming:
        await browser.page.get_by_role("link", name="CSV").click()
    download = await coming.value
    assert re.fullmatch(r"room-1_\d{8}T\d{6}Z_\d{8}T\d{6}Z\.csv", download.suggested_filename)
    rows = list(csv.reader(io.StringIO((await download.path()).read_text())))
    assert rows[0] == ["time (UTC)", "row width (s)", "temperature (°C)", "humidity (% RH)"]
    assert [row[2] for row in rows[1:]] == [str(20.0 + number) for number in range(20)]
    assert all(row[0].endswith("Z") and row[2] == row[3] for row in rows[1:])


async def test_an_impossible_download_is_refused_with_the_reason(filler: Filler, web: Web) -> None:
    def answer(**query: str) -> tuple[int, str]:
        try:
            path = f"{web.url}/device/room-1/history.csv?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(path, timeout=10) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    times = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}
    assert (await asyncio.to_thread(answer, metric="temperature", **times))[0] == 400
    status, text = await asyncio.to_thread(answer, metric="temperature", **times)
    assert "expected an end after the start" in text
    status, text = await asyncio.to_thread(answer, metric="=1+1", start=times["end"], end=times["start"])
    assert (status, "is no series" in text) == (400, True)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_phone_shows_all_of_it_without_sideways_scrolling(
    filler: Filler, web: Web, browser: Browser, settings: Settings, theme: str
) -> None:
    await write_metrics(filler)
    await write_attribute(settings, "room-1", "firmware", "long-" * 40)
    row = AlarmRow(rule="hot", kind="threshold", device="room-1", metric="temperature", since=now_us(), message="hot " * 30)
    await write_alarm(settings, row)
    await browser.page.set_viewport_size({"width": 360, "height": 740})
    await browser.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    await browser.open(f"{web.url}{PAGE}&metric=temperature&metric=humidity")
    await expect(browser.page.locator("#details")).to_contain_text("firmware")
    await has_points(browser, "history-points-2", 20)
    assert await browser.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.errors == []
    assert browser.outside == []
