"""What a person sees of the whole pipeline: from a simulated sensor's packet to a growing line in the browser."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import missing
from tests.support import chromium
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.browser]

POINTS = """() => {
  const source = window.Bokeh?.documents[0]?.get_model_by_name("live-points")
  return source ? [Array.from(source.get_column("time")), Array.from(source.get_column("value"))] : null
}"""
HAS_MORE_THAN = """count => window.Bokeh?.documents[0]?.get_model_by_name("live-points")?.get_length() > count"""


async def test_the_line_of_a_simulated_device_grows_by_what_the_store_holds(tmp_path: Path) -> None:
    if reason := chromium.available():
        missing(reason)
    with Stack(tmp_path / "stack", "--devices", "6", "--rate", "4") as stack:
        async with chromium.chromium() as browser:
            await browser.open(stack.web)
            for number in range(1, 7):  # two devices for each protocol
                await expect(browser.page.get_by_role("link", name=re.compile(f"room-{number:03d}"))).to_be_visible()
            for number, protocol in ((1, "tcp"), (2, "mqtt"), (3, "coap")):
                device = f"room-{number:03d}"
                await browser.open(f"{stack.web}device?id={device}")
                await browser.page.wait_for_function(HAS_MORE_THAN, arg=5)
                before = len((await browser.page.evaluate(POINTS))[0])
                await browser.page.wait_for_function(HAS_MORE_THAN, arg=before + 8)
                times, values = await browser.page.evaluate(POINTS)
                assert times == sorted(times), protocol
                assert time.time() - times[-1] / 1000 < 10
                rows = await asyncio.to_thread(
                    stack.json, "query", device, "temperature", "--last", "10m", "--points", "100000"
                )
                stored = [row["last"] for row in rows]
                assert stored[: len(values)] == values, protocol
        assert browser.errors == []
        assert browser.outside == []
        assert stack.complaints() == []
