"""Open websockets and their sessions, where a kick was lost."""

import asyncio

import pytest

from dashboards.access.sockets import Sockets
from isotherm.accounts.accounts import Accounts
from isotherm.accounts.passwords import Passwords
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import hash_of
from isotherm.accounts.users import User
from isotherm.settings import Settings
from isotherm.store import client
from tests.accounts.conftest import ADA, CHEAP

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("what", ["nothing", "log out", "role"])
async def test_whoever_has_missed_a_kick_finds_out_when_it_listens_again(settings: Settings, what: str) -> None:
    async with client.connected(settings) as redis:
        accounts = Accounts(redis, Passwords(CHEAP))
        await accounts.users.create(User("ada", Role.VIEWER))
        hashed = hash_of(await accounts.begin("ada", ADA))
        sockets = Sockets(redis, accounts.sessions)
        with sockets.opened(hashed) as socket, sockets.opened(hashed) as unknown:
            socket.role = Role.VIEWER
            if what == "log out":
                await accounts.sessions.end("ada", hashed)
            elif what == "role":
                await accounts.set_role("ada", Role.OPERATOR, ADA)
            assert not socket.ended.is_set(), "nobody listens yet"
            running = asyncio.create_task(sockets.run())
            if what == "nothing":
                await accounts.sessions.kick("nobody")
                await sockets._look()
                assert not socket.ended.is_set()
            else:
                await asyncio.wait_for(socket.ended.wait(), 10)
                assert unknown.ended.is_set() is (what == "log out")
            running.cancel()
        assert sockets._open == {}
