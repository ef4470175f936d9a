from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.passwords import Passwords
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.client import Client
from tests.support import families
from tests.support.valkey import Valkey

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ADA = Actor("ada", "192.0.2.1", "a browser")


@pytest.fixture
async def redis(server: Valkey) -> AsyncIterator[Client]:
    server.empty()
    connection = client.connect(Settings(redis=server.url))
    yield connection
    await families.check(connection)
    await connection.aclose()


@pytest.fixture
def accounts(redis: Client) -> Accounts:
    return Accounts(redis, Passwords(CHEAP))
