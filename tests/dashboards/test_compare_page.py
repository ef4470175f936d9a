"""The compare page in a real browser: globs, common times, two axes, an address that shows the same again."""

import csv
import io
import math
import re
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from playwright.async_api import expect

from isotherm.clock import now_us
from isotherm.limits import MINUTE, SECOND
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import Browser
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.servers]

UNITS = {"room-1/t": "Cel", "room-2/t": "Cel", "room-2/h": "%RH", "room-3/p": "hPa"}
COLUMN = "name => Array.from(Bokeh.documents[0].get_model_by_name('compare-points')?.get_column(name) ?? []).map(String)"
HAS_VALUES = f"name => ({COLUMN})(name).some(text => text !== 'NaN')"
VISIBLE = """() => Bokeh.documents[0].get_model_by_name("compare-plot").renderers
  .filter(one => one.name && one.visible).map(one => one.name)"""
AXES = """() => { const plot = Bokeh.documents[0].get_model_by_name("compare-plot")
  const right = plot.right.find(one => one.y_range_name)
  return [plot.left[0].axis_label.text, right?.visible ? right.axis_label.text : null] }"""


async def write_series(filler: Filler) -> int:
    now = now_us()
    ages = range(59, -1, -1)
    points = {name: [(now - ago * MINUTE, 10.0 * place + ago) for ago in ages] for place, name in enumerate(UNITS, 1)}
    await filler.write(points, UNITS)
    return now


def lines(browser: Browser) -> Any:
    return browser.page.locator("#legend tbody tr")


async def add(browser: Browser, pattern: str) -> None:
    await browser.page.get_by_role("combobox").fill(pattern)
    await browser.page.keyboard.press("Enter")


async def test_series_that_match_are_drawn_on_common_times_with_their_figures(
    filler: Filler, web: Web, browser: Browser
) -> None:
    await write_series(filler)
    await browser.open(f"{web.url}/compare?series=room-*/t&last=1h")
    await expect(lines(browser)).to_have_count(2)
    await browser.page.wait_for_function(HAS_VALUES, arg="line1")
    times = [float(text) for text in await browser.page.evaluate(COLUMN, "time")]
    assert len({round(after - before) for before, after in pairwise(times)}) == 1
    one, other = [[float(text) for text in await browser.page.evaluate(COLUMN, name)] for name in ("line0", "line1")]
    both = [(a, b) for a, b in zip(one, other, strict=True) if not math.isnan(a) and not math.isnan(b)]
    assert len(both) > 300
    assert all(b - a == pytest.approx(10.0) for a, b in both)
    await expect(lines(browser).nth(0)).to_have_text(re.compile(r"room-1/t.*39\.5 °C\s*10 °C\s*69 °C\s*10 °C"))
    assert browser.errors == []
    assert browser.outside == []


async def test_a_second_unit_has_an_axis_and_a_third_is_left_out(filler: Filler, web: Web, browser: Browser) -> None:
    await write_series(filler)
    await browser.open(f"{web.url}/compare")
    await expect(browser.page.locator("#comparebar")).to_contain_text("Choose what to compare")
    await add(browser, "room-*/t")
    await expect(lines(browser)).to_have_count(2)
    await add(browser, "room-2/h")
    await expect(lines(browser)).to_have_count(3)
    assert await browser.page.evaluate(AXES) == ["°C", "% RH"]
    await add(browser, "*/p")
    await expect(browser.page.locator("#comparebar .note")).to_contain_text("hPa are left out")
    await expect(lines(browser)).to_have_count(3)
    await add(browser, "nothing-*/t")
    await expect(browser.page.locator("#comparebar .tag", has_text="nothing-*/t")).to_contain_text("matches nothing")


async def test_the_address_reproduces_series_range_and_hidden_lines(filler: Filler, web: Web, browser: Browser) -> None:
    await write_series(filler)
    await browser.open(f"{web.url}/compare?series=room-*/t")
    await browser.page.get_by_role("button", name="7 d").click()
    await browser.page.get_by_role("button", name="room-2/t").click()
    await browser.page.wait_for_url(re.compile(r"series=room-\*/t&last=7d&hide=room-2/t"))
    second = Browser(await browser.page.context.new_page())
    await second.open(browser.page.url)
    await expect(lines(second)).to_have_count(2)
    await expect(second.page.get_by_role("button", name="room-2/t")).to_have_attribute("aria-pressed", "false")
    await expect(second.page.get_by_role("button", name="7 d")).to_have_attribute("aria-pressed", "true")
    await second.page.wait_for_function(f"() => ({VISIBLE})().join() === 'room-1/t'")
    await second.page.get_by_role("button", name="Remove room-*/t").click()
    await expect(lines(second)).to_have_count(0)


async def test_what_is_compared_can_be_had_as_a_file(filler: Filler, web: Web, browser: Browser) -> None:
    await write_series(filler)
    await browser.open(f"{web.url}/compare?series=room-*/t&last=1h")
    await expect(lines(browser)).to_have_count(2)
    async with browser.page.expect_download() as coming:
        await browser.page.get_by_role("link", name="CSV").click()
    rows = list(csv.reader(io.StringIO((await (await coming.value).path()).read_text())))
    assert rows[0][2:] == ["room-1/t (°C)", "room-2/t (°C)"]
    assert len(rows) >= 59


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("last=soon", "last is 'soon', expected a length such as 90m"),
        ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "expected 1 minute to 366 days"),
        ("start=<b>&end=x", "'<b>' is no time"),
    ],
)
async def test_a_range_that_cannot_be_is_said_to_be_none(
    filler: Filler, web: Web, browser: Browser, query: str, said: str
) -> None:
    await write_series(filler)
    await browser.open(f"{web.url}/compare?series=room-*/t&{query}")
    await expect(browser.page.locator("#comparebar .problem")).to_contain_text(said)
    await expect(lines(browser)).to_have_count(2)


async def test_a_range_that_ends_now_takes_in_what_comes(filler: Filler, web: Web, browser: Browser) -> None:
    now = await write_series(filler)
    await browser.open(f"{web.url}/compare?series=room-1/t&last=1h")
    line = lines(browser).nth(0)
    await expect(line).to_contain_text("10 °C")
    for number in range(1, 31):  # it is read anew when something comes, and not within 10 s of the reading before
        await filler.write({"room-1/t": [(now + number * SECOND // 2, 500.0)]})
        with suppress(AssertionError):
            await expect(line).to_contain_text("500 °C", timeout=500)
            break
    await expect(line).to_contain_text("500 °C")


async def test_the_page_says_when_the_store_is_away_and_goes_on_by_itself(
    filler: Filler, web: Web, browser: Browser, valkey: Valkey
) -> None:
    await write_series(filler)
    await browser.open(f"{web.url}/compare?series=room-*/t&last=1h")
    await expect(lines(browser)).to_have_count(2)
    valkey.stop()
    problem = browser.page.locator("#comparebar .problem")
    await expect(problem).to_contain_text("The store does not answer")
    valkey.start()
    await expect(problem).to_be_hidden()


async def test_a_phone_compares_without_sideways_scrolling(filler: Filler, web: Web, browser: Browser) -> None:
    await write_series(filler)
    await browser.page.set_viewport_size({"width": 360, "height": 740})
    await browser.open(f"{web.url}/compare?series=*&last=1h")
    await expect(lines(browser)).to_have_count(3)
    assert await browser.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.errors == []
