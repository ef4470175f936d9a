"""The client that awaits: as the one that blocks, line by line."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Generic, ParamSpec, Self, TypeVar, overload

import httpx2

from isotherm.client import operations
from isotherm.client.errors import ClientError, Unavailable
from isotherm.client.exchange import Answer, Listing, NoAnswer, Request, Steps, Wait, attempted, check
from isotherm.client.following import MAX_EVENT_BYTES, SILENCE_SECONDS, Following
from isotherm.client.model import Reading
from isotherm.client.wire import DEFAULT_URL, PATIENCE_SECONDS, STREAM_PATIENCE_SECONDS, TIMEOUT_SECONDS, Wire

P = ParamSpec("P")
T = TypeVar("T")


class _Call(Generic[P, T]):
    """An operation as a method."""

    def __init__(self, operation: Callable[P, Steps[T]]) -> None:
        self._operation = operation

    @overload
    def __get__(self, client: None, owner: object) -> Callable[P, Steps[T]]: ...

    @overload
    def __get__(self, client: AsyncClient, owner: object) -> Callable[P, Awaitable[T]]: ...

    def __get__(self, client: AsyncClient | None, owner: object) -> Callable[P, Steps[T]] | Callable[P, Awaitable[T]]:
        operation = self._operation
        return operation if client is None else lambda *a, **k: client.run(operation(*a, **k))


class _List(Generic[P, T]):
    """A list as a method: an iterator, which asks for a page when it needs it."""

    def __init__(self, operation: Callable[P, Listing[T]]) -> None:
        self._operation = operation

    @overload
    def __get__(self, client: None, owner: object) -> Callable[P, Listing[T]]: ...

    @overload
    def __get__(self, client: AsyncClient, owner: object) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, client: AsyncClient | None, owner: object) -> Callable[P, Listing[T]] | Callable[P, AsyncIterator[T]]:
        operation = self._operation
        return operation if client is None else lambda *a, **k: client.items(operation(*a, **k))


class AsyncClient:
    """The REST API. Each method has its arguments and errors from `isotherm.client.operations`."""

    devices = _List(operations.devices.devices)
    device = _Call(operations.devices.device)
    create_device = _Call(operations.devices.create_device)
    update_device = _Call(operations.devices.update_device)
    label_device = _Call(operations.devices.label_device)
    delete_device = _Call(operations.devices.delete_device)
    create_device_token = _Call(operations.devices.create_device_token)
    revoke_device_tokens = _Call(operations.devices.revoke_device_tokens)
    presence = _List(operations.devices.presence)
    attributes = _Call(operations.devices.attributes)
    commands = _List(operations.commands.commands)
    command = _Call(operations.commands.command)
    send_command = _Call(operations.commands.send_command)
    cancel_command = _Call(operations.commands.cancel_command)
    configuration = _Call(operations.configuration.configuration)
    configure = _Call(operations.configuration.configure)
    push_configuration = _Call(operations.configuration.push_configuration)
    rollouts = _List(operations.rollouts.rollouts)
    rollout = _Call(operations.rollouts.rollout)
    rollout_devices = _List(operations.rollouts.rollout_devices)
    begin_rollout = _Call(operations.rollouts.begin_rollout)
    halt_rollout = _Call(operations.rollouts.halt_rollout)
    resume_rollout = _Call(operations.rollouts.resume_rollout)
    retry_rollout = _Call(operations.rollouts.retry_rollout)
    roll_back = _Call(operations.rollouts.roll_back)
    firmware = _List(operations.firmware.firmware)
    image = _Call(operations.firmware.image)
    upload_image = _Call(operations.firmware.upload_image)
    remove_image = _Call(operations.firmware.remove_image)
    firmware_keys = _List(operations.firmware.firmware_keys)
    trust_key = _Call(operations.firmware.trust_key)
    distrust_key = _Call(operations.firmware.distrust_key)
    latest = _List(operations.series.latest)
    series = _Call(operations.series.series)
    table = _Call(operations.series.table)
    alarms = _List(operations.alarms.alarms)
    acknowledge = _Call(operations.alarms.acknowledge)
    shelve = _Call(operations.alarms.shelve)
    unshelve = _Call(operations.alarms.unshelve)
    rules = _List(operations.rules.rules)
    broken_rules = _Call(operations.rules.broken_rules)
    rule = _Call(operations.rules.rule)
    create_rule = _Call(operations.rules.create_rule)
    update_rule = _Call(operations.rules.update_rule)
    delete_rule = _Call(operations.rules.delete_rule)
    rejects = _List(operations.rejects.rejects)
    reject = _Call(operations.rejects.reject)
    original = _Call(operations.rejects.original)
    replay_reject = _Call(operations.rejects.replay_reject)
    hosts = _List(operations.hosts.hosts)
    host = _Call(operations.hosts.host)
    create_host = _Call(operations.hosts.create_host)
    delete_host = _Call(operations.hosts.delete_host)
    host_keys = _Call(operations.hosts.host_keys)
    set_host_keys = _Call(operations.hosts.set_host_keys)
    users = _List(operations.users.users)
    user = _Call(operations.users.user)
    create_user = _Call(operations.users.create_user)
    update_user = _Call(operations.users.update_user)
    delete_user = _Call(operations.users.delete_user)
    reset_password = _Call(operations.users.reset_password)
    invite = _Call(operations.users.invite)
    tokens = _List(operations.users.tokens)
    create_token = _Call(operations.users.create_token)
    revoke_token = _Call(operations.users.revoke_token)
    ledger = _Call(operations.system.ledger)
    analytics = _Call(operations.system.analytics)
    events = _Call(operations.system.events)

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        patience: float = PATIENCE_SECONDS,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Prepare; the arguments are those of `isotherm.client.Client`.

        Raises:
            ValueError: the URL is none.
        """
        self._wire = Wire(url, token, timeout)
        self._patience = patience
        self._http = httpx2.AsyncClient(**self._wire.options, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def stream(
        self, names: str | Sequence[str], *, after: str = "", patience: float = STREAM_PATIENCE_SECONDS
    ) -> AsyncStream:
        """Follow series live, as `isotherm.client.Client.stream` does."""
        return AsyncStream(self, self._http, self._wire, Following(operations.series.names_of(names), after, patience))

    async def run(self, steps: Steps[T]) -> T:
        """Go through the steps of an operation."""
        moves = attempted(steps, self._patience)
        answer: Answer | NoAnswer | None = None
        while True:
            try:
                move = moves.send(answer)
            except StopIteration as done:
                found: T = done.value
                return found
            answer = await self._do(move)

    async def items(self, listing: Listing[T]) -> AsyncIterator[T]:
        """Go through a list, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self.run(listing.page(cursor))
            for item in page.items:
                yield item
            cursor = page.next

    async def _do(self, move: Request | Wait) -> Answer | NoAnswer | None:
        if isinstance(move, Wait):
            await _sleep(move.seconds)
            return None
        try:
            return self._wire.answer(await self._http.request(**self._wire.arguments(move)))
        except httpx2.RequestError as error:
            return self._wire.no_answer(error)


class AsyncStream:
    """Readings as they come; close it, or use it as a context manager, when it is not iterated over to its end."""

    def __init__(self, client: AsyncClient, http: httpx2.AsyncClient, wire: Wire, following: Following) -> None:
        self._client = client  # which is to live as long
        self._http = http
        self._wire = wire
        self._following = following
        self._readings = self._all()

    @property
    def position(self) -> str:
        """Up to where all readings were handed over, for ``after`` of another stream within two hours."""
        return self._following.position

    def __aiter__(self) -> AsyncIterator[Reading]:
        return self

    async def __anext__(self) -> Reading:
        return await anext(self._readings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it."""
        await self._readings.aclose()

    async def _all(self) -> AsyncGenerator[Reading, None]:
        while True:
            error: ClientError | None = None
            try:
                async with aclosing(self._connection()) as readings:
                    async for reading in readings:
                        yield reading
            except httpx2.RequestError as lost:
                error = Unavailable(self._wire.no_answer(lost).why)
            except ClientError as refused:
                error = refused
            await _sleep(self._following.lost(error))

    async def _connection(self) -> AsyncGenerator[Reading, None]:
        arguments = self._wire.arguments(self._following.request(), silence=SILENCE_SECONDS)
        async with self._http.stream(**arguments) as response:
            if response.status_code != httpx2.codes.OK:
                await response.aread()
                check(self._wire.answer(response))
            self._following.opened(self._wire.head(response))
            async for event in httpx2.EventSource(response, MAX_EVENT_BYTES):
                for reading in self._following.readings(event):
                    yield reading


async def _sleep(seconds: float) -> None:
    import asyncio  # 20 ms, which a program that blocks should not pay

    await asyncio.sleep(seconds)
