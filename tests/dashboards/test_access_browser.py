"""Log-in and accounts as people see them: a real browser, one for each person."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import ViewportSize, expect

from dashboards.shell import PAGES
from isotherm.accounts.role import Role
from isotherm.clock import now_us
from isotherm.settings import Settings
from tests.dashboards.people import log_in, register
from tests.dashboards.stack import Filler, Web
from tests.dashboards.test_access import PASSWORD
from tests.support import chromium as browsers
from tests.support.chromium import IS_IDLE, Browser
from tests.support.ports import free_port
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.servers]

PHONE = ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("access-browser")
    with Valkey(directory / "valkey") as valkey:
        made = Settings(data_dir=directory, redis=valkey.url, web_port=free_port())
        asyncio.run(_prepare(made))
        yield made


@pytest.fixture(scope="module")
def web(settings: Settings) -> Iterator[Web]:
    with Web(settings) as process:
        yield process


async def _prepare(settings: Settings) -> None:
    await register(settings)
    await Filler(settings).write({"room-1/temperature": [(now_us(), 1.0)]})


def pages_of(role: Role) -> list[str]:
    return [name for _, name, least in PAGES if role >= least]


@pytest.fixture
async def other() -> AsyncIterator[Browser]:
    """The browser of somebody else."""
    if missing := browsers.available():
        pytest.skip(missing)
    async with browsers.chromium() as one:
        yield one


async def test_a_wrong_password_a_right_one_and_the_page_that_was_wanted(web: Web, browser: Browser) -> None:
    page = browser.page
    await log_in(page, web.url + "/device?id=room-1", "vera", "wrong")
    await expect(page.get_by_role("alert")).to_have_text("Name or password is wrong, or the account is disabled.")
    await expect(page.get_by_label("Name")).to_have_value("vera")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_function(IS_IDLE)
    assert page.url == web.url + "/device?id=room-1"
    await expect(page.locator("header nav a")).to_have_text(pages_of(Role.VIEWER))
    assert [error for error in browser.errors if "401" not in error] == []
    assert browser.outside == []


async def test_log_out_closes_the_other_tab(web: Web, browser: Browser) -> None:
    page = browser.page
    await log_in(page, web.url, "otto")
    await page.wait_for_function(IS_IDLE)
    tab = await page.context.new_page()
    await tab.goto(web.url + "/device?id=room-1")
    await tab.wait_for_function(IS_IDLE)
    await page.locator(".user summary").click()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await expect(tab.get_by_role("heading", name="Log in")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()


async def test_two_users_at_once_each_with_their_own_role(web: Web, browser: Browser, other: Browser) -> None:
    await log_in(browser.page, web.url, "anna")
    await log_in(other.page, web.url, "vera")
    for one, name, pages in (
        (browser, "anna", pages_of(Role.ADMIN)),
        (other, "vera", pages_of(Role.VIEWER)),
    ):
        await one.page.wait_for_function(IS_IDLE)
        await expect(one.page.locator(".user summary")).to_have_text(name)
        assert await one.page.locator("header nav a").all_inner_texts() == pages
    refused = await other.page.goto(web.url + "/admin")
    assert refused is not None
    assert refused.status == 403
    await other.page.goto(web.url)
    await other.page.wait_for_function(IS_IDLE)

    await browser.page.get_by_role("link", name="Admin").click()
    await browser.page.get_by_label("Role of vera", exact=True).select_option("admin")
    await browser.page.get_by_role("button", name="Set the role of vera").click()
    await expect(browser.page.get_by_role("status").filter(has_text="role is changed")).to_be_visible()
    await expect(other.page.locator("header nav")).to_contain_text("Admin")  # its open page came anew by itself
    await other.page.wait_for_function(IS_IDLE)
    await browser.page.get_by_label("Role of vera", exact=True).select_option("viewer")
    await browser.page.get_by_role("button", name="Set the role of vera").click()
    await expect(other.page.locator("header nav")).not_to_contain_text("Admin")


async def test_somebody_is_invited_and_registers(web: Web, browser: Browser, other: Browser) -> None:
    await log_in(browser.page, web.url + "/admin", "anna")
    await browser.page.get_by_role("button", name="Make a link").click()
    link = await browser.page.get_by_role("textbox", name="Invitation").input_value()
    await other.page.goto(link)
    await other.page.get_by_label("Name").fill("Nuňo")
    await other.page.get_by_label("Password").fill("short-one")
    await other.page.get_by_role("button", name="Create account").click()
    wrong = other.page.get_by_label("Password")
    await expect(wrong).to_have_attribute("aria-invalid", "true")
    await expect(other.page.locator("#password-note")).to_contain_text("at least 10 characters, this one has 9")
    await wrong.fill(PASSWORD)
    await other.page.get_by_role("button", name="Create account").click()
    await other.page.wait_for_function(IS_IDLE)
    await expect(other.page.locator(".user summary")).to_have_text("nuňo")


async def test_without_javascript_one_can_log_in_and_administrate(web: Web) -> None:
    if missing := browsers.available():
        pytest.skip(missing)
    async with browsers.chromium(java_script_enabled=False) as browser:
        await log_in(browser.page, web.url + "/admin", "anna")
        await expect(browser.page.get_by_role("heading", name="Users")).to_be_visible()
        await browser.page.get_by_role("link", name="Audit log").click()
        await expect(browser.page.get_by_role("cell", name="log in").first).to_be_visible()
        await browser.page.locator(".user summary").click()
        await browser.page.get_by_role("link", name="Account").click()
        await expect(browser.page.get_by_role("button", name="Change password")).to_be_visible()


async def test_a_phone_shows_every_page_without_sideways_scrolling(web: Web, browser: Browser) -> None:
    await browser.page.set_viewport_size(PHONE)
    await log_in(browser.page, web.url + "/admin", "anna")
    for path in ("/admin", "/admin/devices", "/admin/audit", "/admin/settings", "/account", "/logout"):
        await browser.page.goto(web.url + path)
        await expect(browser.page.get_by_role("heading", level=1)).to_be_visible()
        assert await browser.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
    assert browser.errors == []
