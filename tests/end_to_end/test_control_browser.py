"""What a person does with the panels for commands, configuration and rollouts, on simulated devices."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from tests.conftest import missing
from tests.dashboards.test_accessibility import violations
from tests.support import chromium
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.browser, pytest.mark.timeout(240)]


async def fill(form: Locator, **fields: str) -> None:
    for label, value in fields.items():
        await form.get_by_role("textbox", name=label).fill(value)


async def test_devices_are_asked_and_configured_from_the_pages(tmp_path: Path) -> None:
    if reason := chromium.available():
        missing(reason)
    with Stack(tmp_path / "stack", "--devices", "3", "--rate", "2") as stack:
        async with chromium.chromium() as browser:
            await _ask_one(browser, stack)
            await _configure_one(browser)
            assert await violations(browser.page) == []
            await _configure_all(browser, stack)
            assert await violations(browser.page) == []
        assert [one for one in browser.errors if not ("422" in one and "/api/v1/rollouts" in one)] == []
        assert browser.outside == []
        assert stack.complaints() == []
        assert [stack.json("config", "show", f"room-00{number}")["desired"] for number in (1, 2, 3)] == [
            {"calibration": 0.5},
            {},
            {},
        ]


async def _ask_one(browser: chromium.Browser, stack: Stack) -> None:
    await browser.open(f"{stack.web}device?id=room-001")
    panel = browser.page.get_by_role("region", name="Commands")
    commands = panel.get_by_role("table", name="Commands").get_by_role("row")
    await expect(panel.get_by_text("It was asked for nothing")).to_be_visible()
    await panel.get_by_role("textbox", name="Command").fill("ping")
    await panel.get_by_role("button", name="Send").click()
    await expect(commands.filter(has_text="ping").filter(has_text="answered")).to_have_count(1)
    await panel.get_by_role("textbox", name="Command").fill("dance")
    await panel.get_by_role("textbox", name="Parameters").fill("times=3")
    await panel.get_by_role("textbox", name="Parameters").press("Enter")
    refused = commands.filter(has_text="dance")
    await expect(refused).to_contain_text("failed")
    await expect(refused).to_contain_text('{"times":3}')


async def _configure_one(browser: chromium.Browser) -> None:
    panel = browser.page.get_by_role("region", name="Configuration")
    await panel.get_by_role("button", name="Set", exact=True).click()
    await browser.page.keyboard.press("Escape")
    await expect(browser.page.get_by_role("dialog")).to_have_count(0)
    await panel.get_by_role("button", name="Set", exact=True).click()
    dialog = browser.page.get_by_role("dialog")
    await fill(dialog, Setting="calibration", Value="0.5")
    await dialog.get_by_role("button", name="Set").click()
    row = panel.get_by_role("row").filter(has_text="calibration")
    await expect(row.get_by_role("cell").nth(1)).to_have_text("0.5")
    await expect(row.get_by_role("cell").nth(2)).to_have_text("0.5")
    await expect(panel.get_by_text("applied")).to_be_visible()


async def _configure_all(browser: chromium.Browser, stack: Stack) -> None:
    page = browser.page
    await browser.open(stack.web)
    panel = page.get_by_role("region", name="Configuration and commands")
    await panel.get_by_role("button", name="Send a command").click()
    await fill(page.get_by_role("dialog"), Devices="room-*", Command="ping")
    await page.get_by_role("dialog").get_by_role("button", name="Send").click()
    await expect(panel.get_by_role("status")).to_contain_text("ping is sent to 3 devices")

    await panel.get_by_role("button", name="Configure devices").click()
    dialog = page.get_by_role("dialog")
    await fill(dialog, Devices="hall-*", Settings="calibration=2")
    await dialog.get_by_role("button", name="Roll out").click()
    await expect(dialog).to_contain_text("there is no device")
    await fill(dialog, Devices="room-*", Waves="40")
    await dialog.get_by_role("button", name="Roll out").click()
    first = panel.get_by_role("article").filter(has_not_text="Back:")
    await expect(first).to_contain_text(re.compile("done.*3 applied"))
    await first.get_by_role("button", name=re.compile("Roll back")).click()
    await page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    await expect(panel.get_by_role("article").filter(has_text="Back:")).to_contain_text(re.compile("done.*3 applied"))

    await panel.get_by_role("button", name="Configure devices").click()
    await fill(dialog, Label="attic", Settings="calibration=3")
    await dialog.get_by_role("checkbox", name="Also devices that match later").check()
    await dialog.get_by_role("button", name="Roll out").click()
    watching = panel.get_by_role("article").filter(has_text="attic")
    await expect(watching).to_contain_text("watching for devices that come")
    await watching.get_by_role("button", name=re.compile("Halt")).click()
    await expect(watching).to_contain_text(re.compile("halted, continuous: halted by"))
