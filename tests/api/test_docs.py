"""The interactive description, as somebody sees it in a browser."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.dashboards.people import log_in
from tests.dashboards.stack import Web
from tests.support import chromium as browsers

pytestmark = [pytest.mark.browser, pytest.mark.servers]


async def test_the_description_is_served_by_ourselves_and_tries_requests_with_the_session(web: Web) -> None:
    if missing := browsers.available():
        pytest.skip(missing)
    async with browsers.chromium() as browser:
        page = browser.page
        await log_in(page, web.url + "/api/v1/docs", "vera")
        await expect(page.get_by_role("heading", name="Isotherm")).to_be_visible()
        operation = page.locator("#operations-devices-list_devices_devices_get")
        await operation.get_by_role("button", name="GET").first.click()
        await operation.get_by_role("button", name="Execute").click()
        await expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
        await expect(operation.locator(".live-responses-table")).to_contain_text("room-0")
        assert browser.errors == []
        assert browser.outside == []
