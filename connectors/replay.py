"""Replay: inputs that were refused, taken in once more through a decoder that understands them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import msgspec

from connectors.decoders import run_file
from connectors.formats.catalogue import NDJSON, SENML_JSON, Catalogue, detect_body, split
from connectors.formats.decoded import Decoded
from connectors.identity import Doorkeeper, Identity
from connectors.intake import Intake
from connectors.process import catalogue_of
from isotherm import kafka, ledger
from isotherm.clock import now_us
from isotherm.errors import SettingsError, first_of
from isotherm.registry import Registry
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.store import client

PROTOCOL = "replay"
"""What replayed readings are counted under in the ledger."""

Correct = Callable[[bytes], bytes | Iterable[object]]
"""A decoder of the user's: the original bytes in, SenML (bytes, or records as dicts) out."""


@dataclass(slots=True)
class Outcome:
    """What became of a reject that was replayed.

    Attributes:
        accepted: Readings that are stored now.
        rejected: Inputs that were refused again; they are new rejects.
        errors: Why, of the first of them.
    """

    accepted: int = 0
    rejected: int = 0
    errors: list[str] = field(default_factory=list)


class Replayer:
    """Takes rejects in once more."""

    def __init__(self, intake: Intake, catalogue: Catalogue, clock: list[int], doorkeeper: Doorkeeper | None = None) -> None:
        """Prepare.

        Args:
            intake: Takes the readings.
            catalogue: Every decoder.
            clock: The time that the intake goes by, in µs since the epoch UTC.
            doorkeeper: Tells for whom a device may speak; without one any may for all.
        """
        self._intake = intake
        self._catalogue = catalogue
        self._clock = clock
        self._doorkeeper = doorkeeper

    async def replay(
        self, record: RejectRecord, *, form: str | None = None, device: str | None = None, correct: Correct | None = None
    ) -> Outcome:
        """Decode a reject as if it had just come when it came; returns when Kafka has what is in it.

        Args:
            record: The reject; times that are missing or relative count from when it was received.
            form: Read it as this format, not the one that it was read as.
            device: The device that bare names belong to, where the reject names none.
            correct: Turns its bytes into SenML first.

        Raises:
            Unavailable: Kafka or the store did not answer.
        """
        self._clock[0] = record.received_at
        receipt = await self._intake.accept(
            self._pieces(record, form, correct),
            peer=record.peer,
            identity=await self._identity(record, record.device or device),
            form=form or record.form,
            patient=True,
        )
        await receipt.durable()
        return Outcome(receipt.accepted, receipt.rejected, [f"{one.reason}: {one.detail}" for one in receipt.refusals[:1]])

    async def _identity(self, record: RejectRecord, device: str | None) -> Identity:
        """Return for whom a reject may speak: its device, and where that is a gateway its children.

        One that spoke for another device is taken at its word: whoever replays it has looked at it.
        """
        if self._doorkeeper is None or device is None or record.reason == "identity":
            return Identity(device)
        return await self._doorkeeper.identify(certified=device)

    def _pieces(self, record: RejectRecord, form: str | None, correct: Correct | None) -> Iterator[Decoded]:
        data = record.original
        if correct is not None:
            data = _corrected(data, correct)
            form = form or detect_body(data)
        chosen = form or record.form or detect_body(data)
        if chosen == SENML_JSON and record.count > 1:
            chosen = NDJSON  # records of arrays, each in a line
        decoder = self._catalogue.decoder(chosen)
        count = 1 if correct is not None else record.count
        return chain.from_iterable(decoder(part, record.received_at) for part in split(chosen, data, count))


def _corrected(data: bytes, correct: Correct) -> bytes:
    try:
        made = correct(data)
        if isinstance(made, str):
            return made.encode()
        return made if isinstance(made, bytes) else msgspec.json.encode(list(made))
    except Exception as error:
        raise SettingsError(f"the decoder failed on {data[:80]!r}: {error!r}") from error


@asynccontextmanager
async def replaying(settings: Settings) -> AsyncIterator[Replayer]:
    """An intake of its own, with its own line in the ledger, for the length of the block.

    Raises:
        Unavailable: Kafka or the store did not answer.
        IsothermError: what the block has raised.
    """
    account, instance = ledger.Account(), ledger.instance_of(PROTOCOL)
    producer = kafka.Producer(settings, "isotherm-replay")
    clock = [now_us()]
    await producer.start()
    try:
        intake = Intake(settings, producer, instance, account, clock=lambda: clock[0])
        async with (
            client.connected(settings) as redis,
            ledger.reported(redis, instance, await kafka.cluster_id(settings), account),
            intake.running(),
        ):
            doorkeeper = Doorkeeper(settings, Registry(redis)) if settings.auth == "token" else None
            yield Replayer(intake, catalogue_of(settings), clock, doorkeeper)
    except BaseExceptionGroup as group:  # of the intake's tasks: what was said to the one who replays
        raise first_of(group) from group
    finally:
        await producer.stop()


def load_decoder(where: str) -> Correct:
    """Return a function of a Python file: the one that is named after a colon, ``decode``, or the only registered decoder.

    Args:
        where: ``FILE.py``, ``FILE.py:FUNCTION`` or ``FILE.py:DECODER``.

    Raises:
        SettingsError: there is no such file or function.
    """
    path, _, name = where.partition(":")
    definitions, hooks = run_file(Path(path))
    registered = {hook.name: hook.function for hook in hooks}
    if name in registered:
        return registered[name]
    function: Correct | None = definitions.get(name or "decode")
    if callable(function):
        return function
    if len(registered) == 1 and not name:
        return hooks[0].function
    raise SettingsError(f"{path} defines no function {name or 'decode'!r}; see connectors/README.md")
