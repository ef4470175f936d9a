"""People with accounts, one of each role, and how they log in."""

from playwright.async_api import Page

from isotherm.accounts.role import Role
from isotherm.accounts.users import User
from isotherm.settings import Settings
from tests.accounts.conftest import CHEAP
from tests.dashboards.test_access import PASSWORD, kernel

ROLES = {"vera": Role.VIEWER, "otto": Role.OPERATOR, "anna": Role.ADMIN}


async def register(settings: Settings) -> None:
    """Give vera (viewer), otto (operator) and anna (admin) accounts."""
    async with kernel(settings) as accounts:
        for name, role in ROLES.items():
            await accounts.users.create(User(name, role, password=CHEAP.hash(PASSWORD)))


async def add_viewer(settings: Settings, name: str) -> None:
    """Give somebody an account, a viewer's without a password."""
    async with kernel(settings) as accounts:
        await accounts.users.create(User(name, Role.VIEWER))


async def log_in(page: Page, url: str, name: str, password: str = PASSWORD) -> None:
    """Open a page that asks for a log-in, and give it."""
    await page.goto(url)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()
