"""Takes a picture of a page with Chromium, once it is drawn. Needs what the tests need: `make .venv/ready-dev`."""

import argparse
import asyncio
from pathlib import Path

from playwright.async_api import async_playwright

CHROMIUM = "/usr/bin/chromium"

# Bokeh has drawn all views; a page without Bokeh is taken as it has loaded.
IS_DRAWN = "() => !window.Bokeh || (Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle)"


async def take(url: str, file: Path, *, width: int, height: int, dark: bool, seconds: float) -> None:
    """Open a page, wait until it is drawn and ``seconds`` longer so that live data comes in, and save its picture."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", device_scale_factor=1
        )
        await page.goto(url)
        await page.wait_for_function(IS_DRAWN)
        await page.wait_for_timeout(seconds * 1000)
        await page.screenshot(path=file)
        await browser.close()


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0, help="How much longer to wait for live data.")
    options = parser.parse_args()
    asyncio.run(
        take(
            options.url,
            options.file,
            width=options.width,
            height=options.height,
            dark=options.dark,
            seconds=options.seconds,
        )
    )


if __name__ == "__main__":
    main()
