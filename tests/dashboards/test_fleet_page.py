"""The fleet page in a real browser: counts, filter, groups, health map, map, sparklines."""

import re
from typing import Any

import pytest
from playwright.async_api import expect

from dashboards.shell import STATIC
from isotherm.alarms.row import AlarmRow
from isotherm.clock import now_us
from isotherm.limits import SECOND
from isotherm.presence import Status
from isotherm.settings import Settings
from tests.dashboards.beside import register, write_alarm, write_presence
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import Browser

pytestmark = [pytest.mark.browser, pytest.mark.servers]

FILTER = (STATIC / "filter.js").read_text()
PLACES = {"pump-1": (52.5, 13.4), "pump-2": (52.6, 13.5)}


async def write_fleet(filler: Filler, settings: Settings) -> int:
    """Two pumps with places, of which one is late and has an alarm; a room that is offline."""
    now = now_us()
    points = {f"{device}/current": [(now - ago * 20 * SECOND, 3.0 + ago) for ago in range(40, -1, -1)] for device in PLACES}
    for device, (lat, lon) in PLACES.items():
        points |= {f"{device}/lat": [(now, lat)], f"{device}/lon": [(now, lon)]}
    await filler.write({**points, "room-1/temperature": [(now, 21.5)]}, {"pump-1/current": "A"})
    statuses: dict[str, Status] = {"pump-1": "online", "pump-2": "late", "room-1": "offline"}
    await write_presence(settings, statuses, cadence=20 * SECOND)
    row = AlarmRow(rule="dry", kind="threshold", device="pump-2", metric="current", severity="major", since=now)
    await write_alarm(settings, row)
    for device, floor in (("pump-1", 1), ("pump-2", 2)):
        await register(settings, device, type="pump", gateway="gw-1", labels=[f"floor={floor}"])
    await register(settings, "room-1", type="climate")
    return now


def rows(browser: Browser) -> Any:
    return browser.page.locator("#fleet a.row").filter(visible=True)


def count(browser: Browser, status: str) -> Any:
    return browser.page.locator(f"#fleet .count[data-status={status}]")


async def test_counts_come_from_presence_and_alarms_and_filter_when_clicked(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    await write_fleet(filler, settings)
    await browser.open(web.url + "/")
    for status in ("online", "late", "offline", "alarm"):
        await expect(count(browser, status).locator(".number")).to_have_text("1")
    await count(browser, "late").click()
    await expect(rows(browser)).to_have_count(1)
    await expect(rows(browser)).to_contain_text(re.compile("pump-2.*major"))
    await expect(count(browser, "late")).to_have_attribute("aria-pressed", "true")
    await expect(browser.page.get_by_role("searchbox")).to_have_value("is:late")
    await count(browser, "offline").click()
    await expect(rows(browser)).to_have_text(re.compile("room-1"))
    await count(browser, "offline").click()
    await expect(rows(browser)).to_have_count(3)

    await write_presence(settings, {"room-1": "online"}, cadence=20 * SECOND)
    await expect(count(browser, "online").locator(".number")).to_have_text("2")
    assert browser.errors == []
    assert browser.outside == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pump", ["pump-1", "pump-2"]),
        ("temperature", ["room-1"]),
        ("type:pump -is:late", ["pump-1"]),
        ("label:floor=2", ["pump-2"]),
        ("label:floor", ["pump-1", "pump-2"]),
        ("-label:floor", ["room-1"]),
        ("gateway:gw-1 is:alarm", ["pump-2"]),
        ("is:", ["pump-1", "pump-2", "room-1"]),
        ("<b>", []),
    ],
)
async def test_the_search_box_knows_words_and_facets(browser: Browser, text: str, shown: list[str]) -> None:
    found = await browser.page.evaluate(
        """async ([source, text]) => {
          const { parse } = await import("data:text/javascript," + encodeURIComponent(source))
          const row = (name, words, type, gateway, labels, status, severity) =>
            ({ name, words: name + " " + words, type, gateway, labels, status, severity })
          const rows = [row("pump-1", "current", "pump", "gw-1", ["floor=1"], "online", 0),
            row("pump-2", "current", "pump", "gw-1", ["floor=2"], "late", 2),
            row("room-1", "temperature", "climate", "", ["quiet"], "offline", 0)]
          return rows.filter(parse(text)).map(row => row.name) }""",
        [FILTER, text],
    )
    assert found == shown


async def test_devices_are_grouped_by_label_and_groups_fold(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    await write_fleet(filler, settings)
    await browser.open(web.url + "/")
    await browser.page.get_by_label("Group by").select_option("floor")
    heads = browser.page.locator("#fleet button.group")
    await expect(heads).to_have_count(3)
    await expect(heads.nth(1)).to_have_text(re.compile("floor=2.*1 device, 1 not online, 1 with alarms"))
    await heads.nth(1).focus()
    await browser.page.keyboard.press("Enter")
    await expect(rows(browser)).to_have_count(2)
    await expect(heads.nth(1)).to_have_attribute("aria-expanded", "false")
    await browser.page.get_by_label("Group by").select_option("gateway")
    await expect(heads).to_have_count(2)


async def test_a_row_in_view_has_a_sparkline_that_goes_on(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    now = await write_fleet(filler, settings)
    await browser.open(web.url + "/")
    path = rows(browser).nth(0).locator("svg path")
    await expect(path).to_have_attribute("d", re.compile(r"^M[\d.]+ [\d.]+h\.1(L[\d.]+ [\d.]+){10,}$"))
    before = await path.get_attribute("d")
    await filler.write({"pump-1/current": [(now + SECOND, 99.0)]})
    await expect(path).not_to_have_attribute("d", before or "")
    await browser.page.get_by_label("Sparkline").select_option("temperature")
    await expect(rows(browser).nth(2).locator("svg path")).to_have_attribute("d", re.compile("^M"))


async def test_the_health_map_names_a_device_and_opens_it_by_key_and_by_click(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    await write_fleet(filler, settings)
    await browser.open(web.url + "/")
    await expect(count(browser, "late").locator(".number")).to_have_text("1")
    health = browser.page.locator("#fleet .health canvas")
    await expect(health).to_have_attribute("aria-label", re.compile("3 devices: 1 online, 1 late, 1 offline, 1 alarm"))
    tip = browser.page.locator("#fleet .health .tip")
    await health.hover(position={"x": 25, "y": 5})
    await expect(tip).to_have_text(re.compile("pump-2: late, major alarm, last seen"))
    color = "canvas => Array.from(canvas.getContext('2d').getImageData(25, 5, 1, 1).data)"
    assert await health.evaluate(color) == [0xE0, 0x66, 0x2B, 255]
    await health.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        await browser.page.keyboard.press(key)
    await expect(tip).to_have_text(re.compile("room-1: offline"))
    await browser.page.keyboard.press("Enter")
    await browser.page.wait_for_url(re.compile("/device\\?id=room-1"))


async def test_devices_with_a_location_are_on_a_map_that_asks_nobody(
    filler: Filler, web: Web, browser: Browser, settings: Settings
) -> None:
    await write_fleet(filler, settings)
    await browser.open(web.url + "/")
    canvas = browser.page.locator("#fleet .geo canvas")
    await expect(canvas).to_be_visible()
    box = await canvas.bounding_box()
    assert box is not None
    await canvas.hover(position={"x": box["width"] / 2 - 76.6, "y": 320 - 34})  # pump-1 is the south-western end
    await expect(browser.page.locator("#fleet .geo .tip")).to_have_text(re.compile(r"pump-1: online.*52\.50000, 13\.40000"))
    assert browser.outside == []


async def test_the_map_is_walked_with_the_arrow_keys(filler: Filler, web: Web, browser: Browser, settings: Settings) -> None:
    await write_fleet(filler, settings)
    await browser.open(web.url + "/")
    await expect(browser.page.locator("#fleet .geo canvas")).to_be_visible()
    await browser.page.locator("#fleet .geo canvas").focus()
    seen = []
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowUp"):
        await browser.page.keyboard.press(key)
        seen.append(str(await browser.page.locator("#fleet .geo .tip").text_content()).partition(":")[0])
    assert seen[1] == "pump-1", "the south-western end"
    assert seen[3] != "pump-1"
    await browser.page.keyboard.press("Enter")
    await browser.page.wait_for_url(re.compile(f"/device\\?id={seen[3]}"))


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_phone_shows_the_fleet_without_sideways_scrolling(
    filler: Filler, web: Web, browser: Browser, settings: Settings, theme: str
) -> None:
    await write_fleet(filler, settings)
    await browser.page.set_viewport_size({"width": 360, "height": 740})
    await browser.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    await browser.open(web.url + "/")
    await expect(rows(browser)).to_have_count(3)
    assert await browser.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.errors == []
