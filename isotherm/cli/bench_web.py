"""What pages cost the web process, and how soon they show what devices send."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from isotherm.errors import StackError
from isotherm.limits import SECOND
from isotherm.settings import Settings

DEVICES = 25
OPENS = 30
BURST = 20
"""Pages that are opened at the same time while memory is weighed."""

SETTLE_SECONDS = 3.0
HISTORY_DEVICE = "bench-web-history"
HISTORY_SERIES = (HISTORY_DEVICE, "temperature")
HISTORY_SECONDS = 30 * 86_400 - 3_600
HISTORY_REPEATS = 5

DRAWN_SECONDS = 30.0
DRAWN_RATE = 1_000
"""Readings a second of the fleet while a browser draws one device."""


class WebBench:
    """Measures the web process of a running stack."""

    def __init__(self, settings: Settings, supervisor: int) -> None:
        self._url = f"http://{settings.host}:{settings.web_port}"
        self._settings = settings
        children = psutil.Process(supervisor).children(recursive=True)
        self._web = next(one for one in children if one.cmdline()[-1:] == ["web"])

    async def opens(self) -> dict[str, Any]:
        """Open pages one after the other: CPU ms of the server for each, and ms until its HTML was there."""
        figures: dict[str, Any] = {}
        for name, path in (("fleet", "/"), ("device", "/device?id=bench-web-0")):
            async with self._visitors([path]):
                pass  # what is made once is made now
            cpu, html, whole = self._cpu(), [], []
            for _ in range(OPENS):
                began = time.monotonic()
                async with self._visitors([path]) as [visitor]:
                    whole.append(time.monotonic() - began)
                    html.append(visitor.html_seconds)
            await asyncio.sleep(SETTLE_SECONDS)
            figures[f"open_{name}_cpu_ms"] = round((self._cpu() - cpu) / OPENS * 1000, 1)
            figures[f"open_{name}_html_ms"] = _percentiles(html)
            figures[f"open_{name}_ms"] = _percentiles(whole)
        return figures

    async def sessions(self, count: int, seconds: float) -> dict[str, Any]:
        """Keep pages open whose device sends each second: ms from sending a reading until a session has it; CPU."""
        waits: list[float] = []
        base = time.time()

        async def listen(visitor: Any) -> None:
            async for value in visitor.values():
                waits.append(time.time() - base - value)

        async with self._visitors([f"/device?id=bench-web-{n % DEVICES}" for n in range(count)]) as visitors:
            listening = [asyncio.create_task(listen(visitor)) for visitor in visitors]
            await self._send(1.0 * DEVICES, base, 3.0)
            waits.clear()
            cpu, began = self._cpu(), time.monotonic()
            await self._send(1.0 * DEVICES, base, seconds)
            took, used = time.monotonic() - began, self._cpu() - cpu
            for task in listening:
                task.cancel()
            failed = [one for one in await asyncio.gather(*listening, return_exceptions=True) if isinstance(one, Exception)]
            if failed:
                raise failed[0]
        return {
            "sessions": count,
            "sessions_told": len(waits),
            "sessions_expected": round(count * seconds),
            "sessions_ms": _percentiles(waits),
            "sessions_core_share": round(used / took, 3),
        }

    async def leaves_nothing(self, count: int) -> dict[str, Any]:
        """Open and close pages: MiB that the process has grown by, of so many after a tenth of them."""
        first = 0.0
        for number in range(0, count + count // 10, BURST):
            if number >= count // 10 and not first:
                await asyncio.sleep(SETTLE_SECONDS)
                first = self._web.memory_info().rss
            async with self._visitors([f"/device?id=bench-web-{n % DEVICES}" for n in range(BURST)]):
                pass
        await asyncio.sleep(SETTLE_SECONDS)
        return {"opened_and_closed": count, "grown_mib": round((self._web.memory_info().rss - first) / 2**20, 1)}

    async def drawn(self, seconds: float) -> dict[str, Any]:
        """Let a real Chromium draw a device that sends ten times a second in a fleet: ms from sending to drawn."""
        from simulator.load import TcpLink, keep_rate

        base = time.time()
        stop = asyncio.Event()
        async with _chromium() as page:
            await page.goto(f"{self._url}/device?id=bench-web-0")
            await page.wait_for_function(_IS_IDLE)
            await page.evaluate(_WATCH, base)
            async with asyncio.TaskGroup() as tasks:
                load = tasks.create_task(
                    keep_rate(TcpLink, self._settings.host, self._settings.tcp_port, DRAWN_RATE, 250, stop)
                )
                await self._send(10.0, base, seconds, devices=1)
                await asyncio.sleep(1.0)
                stop.set()
            waits = await page.evaluate("() => window.drawn")
        return {
            "drawn_rate_per_s": round(load.result() / (seconds + 1.0)),
            "drawn": len(waits),
            "drawn_ms": _percentiles(np.array(waits) / 1000),
        }

    async def history(self) -> dict[str, Any]:
        """Let Chromium draw 30 days of a reading a second, and zoom into them: ms from the click to drawn."""
        await asyncio.to_thread(self._import_history)
        opened, zoomed = [], []
        async with _chromium() as page:
            await page.goto(f"{self._url}/device?id={HISTORY_DEVICE}")
            await page.wait_for_function(_IS_IDLE)
            for _ in range(HISTORY_REPEATS):
                for name in ("24 h", "30 d"):
                    button = page.get_by_role("button", name=name, exact=True)
                    await page.evaluate(_TIME_NEXT, "click")
                    await button.click()
                    opened.append(await _timed(page))
                canvas = page.locator("#history canvas").first
                await canvas.scroll_into_view_if_needed()
                box = await canvas.bounding_box()
                middle, low = box["y"] + box["height"] / 2, box["x"] + box["width"] / 2
                await page.mouse.move(low, middle)
                await page.evaluate(_TIME_NEXT, "pointerup")
                await page.mouse.down()
                await page.mouse.move(low + box["width"] / 4, middle, steps=4)
                await page.mouse.up()
                zoomed.append(await _timed(page))
        month = opened[1::2]
        return {
            "history_readings": HISTORY_SECONDS,
            "history_30_d_ms": _percentiles(np.array(month) / 1000),
            "history_zoom_ms": _percentiles(np.array(zoomed) / 1000),
        }

    def _import_history(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        time_us = (int(time.time()) - HISTORY_SECONDS + np.arange(HISTORY_SECONDS)) * SECOND
        value = (
            20 + 5 * np.sin(np.arange(HISTORY_SECONDS) / 13_750) + np.random.default_rng(1).normal(0, 0.2, HISTORY_SECONDS)
        )
        names = [pa.DictionaryArray.from_arrays(np.zeros(HISTORY_SECONDS, np.int32), [text]) for text in HISTORY_SERIES]
        columns = [*names, pa.array(time_us, pa.timestamp("us", tz="UTC")), pa.array(np.round(value, 2))]
        with tempfile.TemporaryDirectory(prefix="isotherm-bench-") as directory:
            file = Path(directory) / "history.parquet"
            pq.write_table(pa.table(columns, names=["device", "metric", "time", "value"]), file)
            command = [sys.executable, "-m", "isotherm", "import", str(file), "--merge"]
            ran = subprocess.run(
                [*command, "--data-dir", str(self._settings.data_dir)], capture_output=True, text=True, check=False
            )
        if ran.returncode:
            raise StackError(f"30 days could not be imported: {ran.stderr.strip()}")

    async def _send(self, rate: float, base: float, seconds: float, devices: int = DEVICES) -> None:
        """Send readings, each of a device after the other, whose value is when they were sent, s after ``base``."""
        from simulator.load import TcpLink

        link = TcpLink()
        await link.open(self._settings.host, self._settings.tcp_port)
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(began + number / rate - time.monotonic())
            now = time.time()
            await link.send(b'{"n":"bench-web-%d/delay","t":%.6f,"v":%.6f}\n' % (number % devices, now, now - base))
        await link.acknowledge(round(rate * seconds))
        await link.close()

    @contextlib.asynccontextmanager
    async def _visitors(self, paths: Sequence[str]) -> AsyncIterator[list[Any]]:
        import aiohttp

        from simulator.visitors import Visitor

        async with aiohttp.ClientSession() as client:
            visitors = [Visitor(client, self._url + path) for path in paths]
            try:
                await asyncio.gather(*(visitor.open() for visitor in visitors))
                yield visitors
            finally:
                await asyncio.gather(*(visitor.close() for visitor in visitors))

    def _cpu(self) -> float:
        used = self._web.cpu_times()
        return float(used.user + used.system)


async def _timed(page: Any) -> float:
    """Return how long it took until the chart was drawn, ms."""
    try:
        async with asyncio.timeout(DRAWN_SECONDS):
            return float(await page.evaluate("() => window.timed"))
    except TimeoutError as error:
        raise StackError(f"the history chart was not drawn within {DRAWN_SECONDS:g} s") from error


@contextlib.asynccontextmanager
async def _chromium() -> AsyncIterator[Any]:
    """A page of Chromium, with Playwright; both are installed for the tests."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        try:
            yield await browser.new_page(viewport={"width": 1280, "height": 900})
        finally:
            await browser.close()


def without_chromium() -> str | None:
    """Say why nothing can be drawn here, or None."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed (make setup for tests)"
    return None if os.path.exists(CHROMIUM) else f"there is no {CHROMIUM}"  # noqa: PTH110


CHROMIUM = "/usr/bin/chromium"

_IS_IDLE = "() => window.Bokeh?.documents.length > 0 && Bokeh.documents[0].is_idle"

# A reading is drawn at the end of the frame after the one in which the chart's columns have it.
_WATCH = """(base) => {
  window.drawn = [];
  let seen = null;
  const points = Bokeh.documents[0].get_model_by_name("live-points");
  const look = () => {
    const values = points.data.value;
    const newest = values?.[values.length - 1];
    if (newest !== undefined && newest !== seen) {
      const first = seen === null;
      seen = newest;
      if (!first) requestAnimationFrame(() => setTimeout(() => {
        window.drawn.push(performance.timeOrigin + performance.now() - (base + newest) * 1000);
      }));
    }
    requestAnimationFrame(look);
  };
  look();
}"""


# From the next event of a kind to the end of the frame in which the history chart has other points.
_TIME_NEXT = """(kind) => {
  const points = Bokeh.documents[0].get_model_by_name("history-points");
  window.timed = new Promise((resolve) => addEventListener(kind, () => {
    const began = performance.now(), before = points.data;
    const look = () => {
      if (points.data === before) requestAnimationFrame(look);
      else requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
    };
    look();
  }, { once: true, capture: true }));
}"""


def _percentiles(seconds: Any) -> dict[str, float]:
    if not len(seconds):
        return {}
    p50, p95, p99 = np.percentile(np.asarray(seconds) * 1000, (50, 95, 99)).tolist()
    return {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)}
