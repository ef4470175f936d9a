"""How commands use the REST API: the one that ISOTHERM_URL names, from any machine, or that of this machine's web process.

For the latter nobody needs a token: who may reach the store is trusted as an admin is, and lends itself one for as long as
the command takes, with the scopes that it needs.
"""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any

import msgspec

from isotherm import stackfile
from isotherm.client import AsyncClient, Client, Refused, Unauthenticated
from isotherm.errors import SettingsError
from isotherm.errors import Unavailable as Away
from isotherm.process import run_command
from isotherm.settings import Settings

LENT_SECONDS = 600
"""After which a token is over that was not given back because the command was killed."""

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@contextmanager
def served(settings: Settings, *scopes: str, seconds: int = LENT_SECONDS) -> Iterator[Client]:
    """Give a client of the REST API; what goes wrong with it becomes an error of one line.

    Args:
        settings: Where it is, and which token to show.
        scopes: What the command needs.
        seconds: How long it may take.
    """
    with translated(settings, scopes), _token(settings, scopes, seconds) as token, _client(settings, token) as client:
        yield client


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AsyncClient]:
    """Give a client that awaits of the REST API that ISOTHERM_URL names."""
    with _address_checked():
        client = AsyncClient(address(settings), settings.api_token)
    async with client:
        yield client


@contextmanager
def translated(settings: Settings, scopes: Iterable[str]) -> Iterator[None]:
    """Make what goes wrong with the REST API an error of one line.

    Args:
        settings: Where it is.
        scopes: What a token needs.
    """
    try:
        yield
    except Unauthenticated as error:
        needed = " ".join(f"--scope {scope}" for scope in scopes)
        raise SettingsError(
            f"{error.detail}; set ISOTHERM_API_TOKEN to what `isotherm tokens create USER {needed}` prints on the server"
        ) from error
    except Refused as error:
        raise SettingsError(_said(error)) from error
    except Away as error:
        raise Away(f"{error}{_hint(settings)}") from error


def plain(answer: msgspec.Struct) -> dict[str, Any]:
    """Return what the API has answered as plain values, times as ISO 8601."""
    found: dict[str, Any] = msgspec.to_builtins(answer, builtin_types=[datetime])
    return {name: _iso(value) if isinstance(value, datetime) else value for name, value in found.items() if name != "etag"}


def address(settings: Settings) -> str:
    """Return where the platform is; of its API's address, which somebody may have copied, without the path."""
    host = _ANY_HOST.get(settings.host, settings.host)
    local = f"http://{f'[{host}]' if ':' in host else host}:{settings.web_port}"
    return (settings.url or settings.web_origin or local).rstrip("/").removesuffix("/api/v1")


def _client(settings: Settings, token: str | None) -> Client:
    with _address_checked():
        return Client(address(settings), token)


@contextmanager
def _address_checked() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise SettingsError(f"ISOTHERM_URL: {error}") from error


@contextmanager
def _token(settings: Settings, scopes: tuple[str, ...], seconds: int) -> Iterator[str | None]:
    if settings.url or settings.api_token:
        yield settings.api_token
        return
    from isotherm.accounts.api_tokens import ApiTokens  # half a second, which nobody pays who has a token
    from isotherm.store import client

    async def lend() -> str:
        async with client.connected(settings) as redis:
            return await ApiTokens(redis).lend(f"cli ({getpass.getuser()})", scopes, seconds)

    async def give_back(token: str) -> None:
        async with client.connected(settings) as redis:
            await ApiTokens(redis).give_back(token)

    token = run_command(lend())
    try:
        yield token
    finally:
        with suppress(Away):  # it is over by itself soon, and what was asked for is done
            run_command(give_back(token))


def _said(error: Refused) -> str:
    """Return what was refused with what was expected, which the API has in two places."""
    rules = [fault.rule for fault in error.faults if fault.rule not in error.detail]
    return error.detail + (f", expected {'; '.join(rules)}" if rules else "")


def _hint(settings: Settings) -> str:
    if settings.url or stackfile.read(settings.data_dir) is not None:
        return ""
    return (
        f"; no local stack runs in {settings.data_dir}: start one with `isotherm up`, name its directory with --data-dir, "
        "or set ISOTHERM_URL and ISOTHERM_API_TOKEN"
    )


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
