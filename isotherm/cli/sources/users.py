"""Users: who may log in, and what they may do."""

from __future__ import annotations

import getpass
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.role import Role
from isotherm.accounts.users import User
from isotherm.cli.sources.opening import micros, opened
from isotherm.client import model
from isotherm.settings import Settings
from isotherm.store.client import Client

if TYPE_CHECKING:
    from isotherm.client import AsyncClient


class Users(Protocol):
    """What the commands about users ask."""

    async def all(self) -> list[User]:
        """Return every user, ascending by name; without their passwords."""

    async def create(self, name: str, role: Role) -> str:
        """Create a user; returns a password that works once."""

    async def set_role(self, name: str, role: Role) -> None:
        """Change what a user may do."""

    async def set_disabled(self, name: str, is_disabled: bool) -> None:
        """Keep a user out, or let them in again."""

    async def remove(self, name: str) -> None:
        """Forget a user."""

    async def reset(self, name: str) -> str:
        """Return a link by which a user may choose another password."""

    async def invite(self, role: Role) -> str:
        """Return a link by which somebody may register."""


class Stored:
    """Users in the store."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._accounts = Accounts.of(redis, settings)
        self._actor = Actor(f"cli ({getpass.getuser()})", "cli")
        self._origin = settings.web_origin or f"http://localhost:{settings.web_port}"

    async def all(self) -> list[User]:
        return await self._accounts.users.all()

    async def create(self, name: str, role: Role) -> str:
        return await self._accounts.create(name, role, self._actor)

    async def set_role(self, name: str, role: Role) -> None:
        await self._accounts.set_role(name, role, self._actor)

    async def set_disabled(self, name: str, is_disabled: bool) -> None:
        await self._accounts.set_disabled(name, is_disabled, self._actor)

    async def remove(self, name: str) -> None:
        await self._accounts.remove(name, self._actor)

    async def reset(self, name: str) -> str:
        return self._origin + await self._accounts.link("reset", name, self._actor)

    async def invite(self, role: Role) -> str:
        return self._origin + await self._accounts.link("invite", role.word, self._actor)


class Served:
    """Users by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def all(self) -> list[User]:
        return [_user(one) async for one in self._api.users()]

    async def create(self, name: str, role: Role) -> str:
        _, password = await self._api.create_user(name, _WORDS[role])
        return password

    async def set_role(self, name: str, role: Role) -> None:
        await self._api.update_user(name, role=_WORDS[role])

    async def set_disabled(self, name: str, is_disabled: bool) -> None:
        await self._api.update_user(name, is_disabled=is_disabled)

    async def remove(self, name: str) -> None:
        await self._api.delete_user(name)

    async def reset(self, name: str) -> str:
        return await self._api.reset_password(name)

    async def invite(self, role: Role) -> str:
        return await self._api.invite(_WORDS[role])


_WORDS: dict[Role, model.Role] = {Role.VIEWER: "viewer", Role.OPERATOR: "operator", Role.ADMIN: "admin"}


def users(settings: Settings, *scopes: str) -> AbstractAsyncContextManager[Users]:
    """Open the users."""
    return opened(settings, Stored, Served, *scopes)


def _user(one: model.User) -> User:
    return User(
        one.name,
        Role.of(one.role),
        micros(one.created),
        is_disabled=one.is_disabled,
        must_change=one.must_change_password,
        subject="told to nobody" if one.has_single_sign_on else "",
        logged_in=micros(one.last_log_in) if one.last_log_in else 0,
    )
