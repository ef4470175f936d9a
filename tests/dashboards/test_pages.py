"""Pages as a person sees them: the real process, a real store, a real browser."""

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import expect

from isotherm.clock import now_us
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import IS_IDLE, Browser
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.servers]

SERIES = "room-1/temperature"
UNITS = {SERIES: "Cel"}
DEVICE = "/device?id=room-1"

COLUMNS = """name => {
  const found = Bokeh.documents[0].get_model_by_name(name)
  return found ? Object.fromEntries(found.columns().map(key => [key, Array.from(found.get_column(key))])) : null
}"""
HAS_POINTS = """([name, count]) => {
  const found = window.Bokeh?.documents[0]?.get_model_by_name(name)
  return found && found.get_length() === count
}"""
NOTE = "#ranges [role=status]"


async def columns(browser: Browser, name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = await browser.page.evaluate(COLUMNS, name)
    return found


async def wait_for_points(browser: Browser, name: str, count: int) -> None:
    await browser.page.wait_for_function(HAS_POINTS, arg=[name, count])


def points(count: int, *, until: int, step: int = SECOND) -> list[tuple[int, float]]:
    return [(until - (count - 1 - number) * step, float(number)) for number in range(count)]


def drawn(some: list[tuple[int, float]]) -> dict[str, list[float]]:
    return {"time": [time / 1000 for time, _ in some], "value": [value for _, value in some]}


async def test_a_live_chart_opens_with_the_last_minutes_and_grows_by_every_reading(
    filler: Filler, web: Web, browser: Browser
) -> None:
    now = now_us()
    old = [(now - 20 * MINUTE, -1.0)]
    before = points(100, until=now)
    await filler.write({SERIES: old + before}, UNITS)
    await browser.open(web.url + DEVICE)
    await wait_for_points(browser, "live-points", 100)
    assert await columns(browser, "live-points") == drawn(before)

    after = [(now + number * SECOND // 10, 100.0 + number) for number in range(1, 31)]
    for reading in after:
        await filler.write({SERIES: [reading]})
    await wait_for_points(browser, "live-points", 130)
    assert await columns(browser, "live-points") == drawn(before + after)
    assert browser.errors == []
    assert browser.outside == []


async def test_a_late_reading_goes_to_its_place_in_time(filler: Filler, web: Web, browser: Browser) -> None:
    before = points(10, until=now_us(), step=10 * SECOND)
    await filler.write({SERIES: before})
    await browser.open(web.url + DEVICE)
    await wait_for_points(browser, "live-points", 10)
    late = (before[4][0] + SECOND, 77.0)
    await filler.write({SERIES: [late]})
    await wait_for_points(browser, "live-points", 11)
    assert await columns(browser, "live-points") == drawn(sorted([*before, late]))


async def test_two_browsers_see_the_same(filler: Filler, web: Web, browser: Browser) -> None:
    before = points(10, until=now_us())
    await filler.write({SERIES: before})
    await browser.open(web.url + DEVICE)
    second = Browser(await browser.page.context.new_page())
    await second.open(web.url + DEVICE)
    after = (before[-1][0] + SECOND, 5.0)
    await wait_for_points(second, "live-points", 10)
    await filler.write({SERIES: [after]})
    for one in (browser, second):
        await wait_for_points(one, "live-points", 11)
        assert await columns(one, "live-points") == drawn([*before, after])


async def test_the_axis_says_metric_and_unit_and_the_head_the_value(filler: Filler, web: Web, browser: Browser) -> None:
    await filler.write({SERIES: [(now_us(), 21.5)], "room-1/humidity": [(now_us(), 40.0)]}, UNITS)
    await browser.open(f"{web.url}{DEVICE}&metric=temperature")
    chosen = browser.page.locator("#head [aria-pressed=true]")
    await expect(chosen).to_have_text(re.compile("temperature.*21.5.*°C"))
    await expect(browser.page.locator("#head time")).to_have_text(re.compile("last seen (now|[0-9]+ s ago)"))
    await wait_for_points(browser, "live-points", 1)
    label = "() => Bokeh.documents[0].get_model_by_name('live-plot').left[0].axis_label.text"
    assert await browser.page.evaluate(label) == "temperature, °C"
    assert await browser.page.title() == "room-1 · Isotherm"


async def test_history_is_read_anew_at_the_resolution_of_the_range(filler: Filler, web: Web, browser: Browser) -> None:
    now = now_us()
    # 20 s apart over two days: a day of it is more than a chart has room for.
    written = points(2 * 4320, until=now, step=20 * SECOND)
    await filler.write({SERIES: written}, UNITS)
    await browser.open(web.url + DEVICE)
    note = browser.page.locator(NOTE)
    await expect(note).to_contain_text("every reading")
    await browser.page.locator("#ranges button", has_text="24 h").click()
    await expect(note).to_contain_text("2 min per point")
    day = await columns(browser, "history-points")
    assert 24 * 30 <= len(day["time"]) <= 1500
    assert all(low <= mean <= high for low, mean, high in zip(day["min"], day["mean"], day["max"], strict=True))

    await drag_over(browser, 0.5, 0.75)
    await expect(note).not_to_contain_text("2 min per point")
    await expect(note).to_contain_text("per point")
    finer = await columns(browser, "history-points")
    start, end = await browser.page.evaluate(
        "() => { const r = Bokeh.documents[0].get_model_by_name('history-plot').x_range; return [r.start, r.end] }"
    )
    assert 4 * HOUR < (end - start) * 1000 < 8 * HOUR
    shown = [time for time in finer["time"] if start <= time <= end]
    assert len(shown) > len([time for time in day["time"] if start <= time <= end])
    await expect(browser.page.locator("#ranges [aria-pressed=true]")).to_have_count(0)
    assert browser.errors == []


async def drag_over(browser: Browser, left: float, right: float) -> None:
    """Zoom the history chart into a part of its width."""
    await browser.page.locator("#history .bk-Figure").scroll_into_view_if_needed()
    box: Any = await browser.page.locator("#history .bk-CartesianFrame, #history canvas").first.bounding_box()
    frame = "() => { const f = Object.values(Bokeh.index).flatMap(v => [v, ...(v.child_views ?? [])])"
    frame += ".find(v => v.model.name === 'history-plot').frame.bbox; return [f.left, f.right, f.top, f.bottom] }"
    x0, x1, y0, y1 = await browser.page.evaluate(frame)
    outer: Any = await browser.page.locator("#history .bk-Figure").bounding_box()
    assert box and outer
    middle = outer["y"] + (y0 + y1) / 2
    mouse = browser.page.mouse
    await mouse.move(outer["x"] + x0 + (x1 - x0) * left, middle)
    await mouse.down()
    await mouse.move(outer["x"] + x0 + (x1 - x0) * (left + right) / 2, middle, steps=4)
    await mouse.move(outer["x"] + x0 + (x1 - x0) * right, middle, steps=4)
    await mouse.up()


async def test_the_fleet_shows_values_with_units_and_when_they_came(filler: Filler, web: Web, browser: Browser) -> None:
    await filler.write({SERIES: [(now_us(), 21.5)], "pump-7/current": [(now_us(), 3.25)]}, {**UNITS, "pump-7/current": "A"})
    await browser.open(web.url + "/")
    rows = browser.page.locator("#fleet a.row")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_have_text(re.compile("pump-7.*3.25 A"))
    await expect(rows.nth(1)).to_have_text(re.compile("room-1.*21.5 °C"))
    await expect(rows.nth(1).locator("time")).to_have_text(re.compile("now|[0-9]+ s ago"))
    await rows.nth(1).locator("time").hover()
    await expect(rows.nth(1).locator("time")).to_have_attribute("title", re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$"))

    await filler.write({SERIES: [(now_us(), 22.25)]})
    await expect(rows.nth(1)).to_contain_text("22.25 °C")
    await filler.write({"attic/temperature": [(now_us(), 30.0)]})
    await expect(rows).to_have_count(3)

    await browser.page.get_by_role("searchbox").fill("ROOM")
    await expect(rows.filter(visible=True)).to_have_count(1)
    for _ in range(3):  # past the choice of groups and of the sparklines
        await browser.page.keyboard.press("Tab")
    await browser.page.keyboard.press("Enter")
    await browser.page.wait_for_url(re.compile(r"/device\?id=room-1"))
    await browser.page.wait_for_function(IS_IDLE)
    await expect(browser.page.locator("h1")).to_have_text("room-1")
    assert browser.errors == []
    assert browser.outside == []


async def test_an_empty_fleet_says_how_to_send_a_first_reading_and_fills_by_itself(
    filler: Filler, web: Web, browser: Browser
) -> None:
    await browser.open(web.url + "/")
    await expect(browser.page.locator("#fleet")).to_contain_text("isotherm simulate")
    await expect(browser.page.locator("#fleet")).to_contain_text("nc -q 1 127.0.0.1 7301")
    await filler.write({SERIES: [(now_us(), 21.5)]})
    await expect(browser.page.locator("#fleet a.row")).to_have_count(1)


async def test_an_unknown_device_is_said_to_be_unknown(filler: Filler, web: Web, browser: Browser) -> None:
    await browser.open(web.url + "/device?id=nobody")
    await expect(browser.page.locator("h1")).to_have_text("No device “nobody”")
    await expect(browser.page.get_by_role("link", name="All devices")).to_have_attribute("href", "/")
    await expect(browser.page.locator("#live")).to_be_hidden()
    await filler.write({"nobody/x": [(now_us(), 1.0)]})
    await wait_for_points(browser, "live-points", 1)
    await expect(browser.page.locator("#live")).to_be_visible()


@pytest.mark.parametrize("text", ["<img src=x onerror=window.hit=1>", "</script><script>window.hit=1</script>", "{{7*7}}"])
async def test_text_of_devices_and_addresses_stays_text(filler: Filler, web: Web, browser: Browser, text: str) -> None:
    await filler.write({SERIES: [(now_us(), 21.5)]}, {SERIES: text})
    await browser.open(web.url + "/")
    await expect(browser.page.locator("#fleet a.row")).to_contain_text(text)
    await browser.open(web.url + DEVICE)
    await expect(browser.page.locator("#head")).to_contain_text(text)
    await wait_for_points(browser, "live-points", 1)
    await browser.page.goto(f"{web.url}/device?id={text}&metric={text}")
    await expect(browser.page.locator("h1")).to_contain_text(text)
    assert await browser.page.evaluate("window.hit") is None
    assert browser.errors == []


async def test_a_page_comes_back_by_itself_when_the_server_was_restarted(filler: Filler, web: Web, browser: Browser) -> None:
    before = points(5, until=now_us())
    await filler.write({SERIES: before})
    await browser.open(web.url + DEVICE)
    await wait_for_points(browser, "live-points", 5)
    assert web.stop() < 2.0, "an open websocket holds the server up"
    await expect(browser.page.locator("#connection")).to_be_visible()
    after = (before[-1][0] + SECOND, 9.0)
    await filler.write({SERIES: [after]})
    web.start()
    await wait_for_points(browser, "live-points", 6)
    await expect(browser.page.locator("#connection")).to_be_hidden()
    assert await columns(browser, "live-points") == drawn([*before, after])


async def test_a_page_outlives_the_store(filler: Filler, web: Web, browser: Browser, valkey: Valkey) -> None:
    before = points(5, until=now_us())
    await filler.write({SERIES: before})
    await browser.open(web.url + DEVICE)
    await wait_for_points(browser, "live-points", 5)
    valkey.stop()
    problem = browser.page.locator("#head .problem")
    await expect(problem).to_be_visible()
    assert await asyncio.to_thread(web.status, "/readyz") == 503
    valkey.start()
    await expect(problem).to_be_hidden()
    assert await asyncio.to_thread(web.status, "/readyz") == 200
    after = (before[-1][0] + SECOND, 9.0)
    await filler.write({SERIES: [after]})
    await wait_for_points(browser, "live-points", 6)
    assert await columns(browser, "live-points") == drawn([*before, after])


async def test_what_is_opened_while_the_store_is_away_says_so_and_claims_nothing(
    web: Web, browser: Browser, valkey: Valkey
) -> None:
    valkey.stop()
    await browser.open(web.url + "/")
    await expect(browser.page.locator("#fleet .problem")).to_be_visible()
    await expect(browser.page.locator("#fleet .bar").first).not_to_contain_text("0 devices")
    answer = await browser.page.goto(web.url + "/admin/devices")
    assert answer is not None
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    await expect(browser.page.locator("main")).to_contain_text("The store does not answer")
    assert "Traceback" not in web.log


async def test_dark_mode_is_remembered(filler: Filler, web: Web, browser: Browser) -> None:
    await filler.write({SERIES: [(now_us(), 21.5)]})
    await browser.open(web.url + DEVICE)
    theme = "() => document.documentElement.dataset.theme"
    assert await browser.page.evaluate(theme) == "light"
    await browser.page.locator("#light").click()
    assert await browser.page.evaluate(theme) == "dark"
    await browser.open(web.url + "/")
    assert await browser.page.evaluate(theme) == "dark"


async def test_five_thousand_devices_are_usable(filler: Filler, web: Web, browser: Browser) -> None:
    now = now_us()
    await filler.write({f"sensor-{number:04d}/temperature": [(now, float(number))] for number in range(5_000)})
    await browser.open(web.url + "/")
    rows = browser.page.locator("#fleet a.row")
    await expect(rows).to_have_count(5_000)
    longest = browser.page.evaluate(
        """() => new Promise(done => {
             let last = performance.now(), longest = 0, frames = 0
             const frame = now => { longest = Math.max(longest, now - last); last = now
               if (++frames < 60) requestAnimationFrame(frame); else done(longest) }
             requestAnimationFrame(frame) })"""
    )
    await filler.write({f"sensor-{number:04d}/temperature": [(now + 1, -1.0)] for number in range(5_000)})
    assert await longest < 1_000
    await rows.nth(4_999).scroll_into_view_if_needed()
    await expect(rows.nth(4_999)).to_contain_text("-1")
    await browser.page.get_by_role("searchbox").fill("sensor-4321")
    await expect(rows.filter(visible=True)).to_have_count(1)


async def test_a_phone_needs_no_sideways_scrolling(filler: Filler, web: Web, browser: Browser) -> None:
    await filler.write({f"room-1/metric-{number}": [(now_us() - DAY // 1000, 1.0)] for number in range(8)})
    await browser.page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", DEVICE):
        await browser.open(web.url + path)
        await expect(browser.page.locator("main")).to_contain_text("metric-7" if path != "/" else "room-1")
        assert await browser.page.evaluate("document.documentElement.scrollWidth") <= 390
