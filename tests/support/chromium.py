"""A real Chromium for tests: Debian's, driven by Playwright."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Page, Request, async_playwright, expect

EXECUTABLE = Path("/usr/bin/chromium")
# Without --disable-quic and the like, Chromium itself asks for outside addresses.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 20_000
expect.set_options(timeout=TIMEOUT_MS)
LOCAL = {"127.0.0.1", "localhost", "::1", None}

# Bokeh has built all views and drawn them.
IS_IDLE = "() => window.Bokeh?.documents.length > 0 && Bokeh.documents[0].is_idle"


def available() -> str | None:
    """Say why Chromium cannot run here, or None when it can."""
    return None if EXECUTABLE.exists() else f"there is no {EXECUTABLE}"


@dataclass
class Browser:
    """A page of a browser, and what it should not have done."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Errors on its console and exceptions that nobody caught."""
    outside: list[str] = field(default_factory=list)
    """Requests that left this machine."""

    async def open(self, url: str) -> None:
        """Go to a Bokeh page and wait until it is drawn."""
        await self.page.goto(url)
        await self.page.wait_for_function(IS_IDLE)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in LOCAL:
            self.outside.append(request.url)


@asynccontextmanager
async def chromium(
    *, width: int = 1280, height: int = 800, executable: Path = EXECUTABLE, **context: Any
) -> AsyncIterator[Browser]:
    """A fresh browser with one page; further options are those of Playwright's ``new_context``."""
    async with async_playwright() as playwright:
        program = await playwright.chromium.launch(executable_path=executable, args=list(OPTIONS))
        try:
            made = await program.new_context(viewport={"width": width, "height": height}, **context)
            made.set_default_timeout(TIMEOUT_MS)
            browser = Browser(await made.new_page())
            browser.page.on("console", browser._console)
            browser.page.on("pageerror", lambda error: browser.errors.append(str(error)))
            browser.page.on("request", browser._request)
            yield browser
        finally:
            await program.close()
