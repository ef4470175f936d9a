"""Every page by axe-core's rules (WCAG 2.1 A and AA, and its best practices), in light and dark, on a desk and a phone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from axe_playwright_python.async_playwright import Axe

from dashboards.shell import PAGES
from isotherm.clock import now_us
from isotherm.hosts import Spec
from isotherm.hosts.kubernetes import Kubernetes
from isotherm.limits import SECOND
from isotherm.settings import Settings
from tests.contracts.hosts import ADA
from tests.dashboards.alarming import Alarming
from tests.dashboards.people import log_in, register
from tests.dashboards.stack import Filler, Web
from tests.support import chromium as browsers
from tests.support.chromium import IS_IDLE
from tests.support.kubernetes_api import UNSCHEDULABLE, KubernetesApi
from tests.support.ports import free_port
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.servers]

ADDRESSES = [
    *(address for address, _, _ in PAGES),
    "/device?id=room-1",
    "/device?id=nowhere",
    "/compare?series=room-*/temperature",
    "/account",
    "/admin/devices",
    "/admin/hosts",
    "/admin/hosts/lab/keys",
    "/admin/audit",
    "/admin/settings",
    "/admin/nowhere",
]

GOOD_SHIFT = 0.1
"""Cumulative layout shift up to which people do not mind it (web.dev/cls)."""

# What has moved by itself so far, and until two frames from now: how much in all, and which elements.
LAYOUT_SHIFT = """() => new Promise((done) => {
  const shift = { sum: 0, moved: [] };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries().filter((one) => !one.hadRecentInput)) {
      shift.sum += entry.value;
      for (const { node, previousRect, currentRect } of entry.sources) {
        const at = (box) => `${box.width | 0}×${box.height | 0} at ${box.x | 0},${box.y | 0}`;
        shift.moved.push(`${node?.outerHTML?.slice(0, 80)}: ${at(previousRect)} → ${at(currentRect)}`);
      }
    }
  }).observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(shift))));
})"""

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "width": 360, "height": 740},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("accessibility")
    with Valkey(directory / "valkey") as valkey, KubernetesApi(directory) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        cluster.pod = UNSCHEDULABLE
        made = Settings(data_dir=directory, redis=valkey.url, web_port=free_port(), kafka="127.0.0.1:1", hosts="kubernetes")
        asyncio.run(fill(made))
        yield made


@pytest.fixture(scope="module")
def web(settings: Settings) -> Iterator[Web]:
    with Web(settings) as process:
        yield process


async def fill(settings: Settings) -> None:
    now = now_us()
    points = [(now - at * SECOND, 20.0 + at % 7) for at in range(300, 0, -1)]
    await Filler(settings).write(
        {f"room-{number}/{metric}": points for number in (1, 2) for metric in ("temperature", "humidity")},
        units={"room-1/temperature": "Cel", "room-2/temperature": "Cel"},
    )
    alarming = Alarming(settings)
    await alarming.keep_rules()
    await alarming.say("room-1/temperature", 35.0, unit="Cel")
    await register(settings)
    await Kubernetes(settings).create(Spec(name="lab", user="vera", keys=(ADA,)))


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_on_any_page(settings: Settings, web: Web, look: str) -> None:
    if missing := browsers.available():
        pytest.skip(missing)
    found: dict[str, list[str]] = {}
    async with browsers.chromium(**LOOKS[look]) as browser:  # type: ignore[arg-type]
        page = browser.page
        await page.goto(web.url + "/login")
        found["/login"] = await violations(page)
        await log_in(page, web.url, "anna")
        await page.wait_for_function(IS_IDLE)
        for address in ADDRESSES:
            await page.goto(web.url + address)
            if await page.locator("html").evaluate("() => document.scripts.length > 2"):
                await page.wait_for_function(IS_IDLE)
            await page.get_by_role("heading", level=1).first.wait_for()
            found[address] = await violations(page)
            wide = await page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                found[address].append(f"{wide} px wider than the window")
    listed = [f"{address}: {one}" for address, some in found.items() for one in some]
    assert not listed, "\n".join(listed)


@pytest.mark.parametrize("look", ["light", "phone"])
async def test_nothing_jumps_while_a_page_is_drawn(web: Web, look: str) -> None:
    if missing := browsers.available():
        pytest.skip(missing)
    shifts = {}
    async with browsers.chromium(**LOOKS[look]) as browser:  # type: ignore[arg-type]
        page = browser.page
        await log_in(page, web.url, "anna")
        for address in ADDRESSES:
            await page.goto(web.url + address)
            if await page.locator("html").evaluate("() => document.scripts.length > 2"):
                await page.wait_for_function(IS_IDLE)
            await page.get_by_role("heading", level=1).first.wait_for()
            shifts[address] = await page.evaluate(LAYOUT_SHIFT)
    assert {address: shift for address, shift in shifts.items() if shift["sum"] > GOOD_SHIFT} == {}


async def violations(page: object) -> list[str]:
    """Return what axe-core has against a page."""
    results = await Axe().run(page)
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:120]} {node['any'][0]['message'] if node['any'] else ''}"
        for one in results.response["violations"]
        for node in one["nodes"][:3]
    ]
