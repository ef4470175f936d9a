"""The client of the REST API, over the web process of the API's own tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from isotherm.accounts.accounts import Actor
from isotherm.client import AsyncClient, Client
from isotherm.settings import Settings
from tests.api.conftest import filler as filler
from tests.api.conftest import kafka as kafka
from tests.api.conftest import settings as settings
from tests.api.conftest import web as web
from tests.dashboards.stack import Web
from tests.dashboards.test_access import kernel

Login = Callable[..., Client]


def token_of(settings: Settings, user: str, *scopes: str) -> str:
    """Return a new token of a user."""

    async def make() -> str:
        async with kernel(settings) as accounts:
            token, _ = await accounts.create_token(user, "a test", scopes, 1, Actor("test", "cli"))
            return token

    return asyncio.run(make())


@pytest.fixture
def login(settings: Settings, web: Web) -> Iterator[Login]:
    """Return what makes a client with a token of a user."""
    with ExitStack() as clients:
        yield lambda user, *scopes: clients.enter_context(Client(web.url, token_of(settings, user, *scopes)))


@pytest.fixture
async def anna(settings: Settings, web: Web) -> AsyncIterator[AsyncClient]:
    """A client that awaits, of an admin."""
    token = await asyncio.to_thread(token_of, settings, "anna", "read", "write")
    async with AsyncClient(web.url, token) as client:
        yield client
