"""Small requests that come in one turn of the event loop are taken in together; each hears of its own readings.

Most devices send a reading or two a request. What intake costs, it costs a call and not a reading (see `connectors.plain`),
so these calls are shared. Requests that cannot be taken in so, because a reading is not plain or not good, go alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from connectors import intake
from connectors.formats.catalogue import NDJSON, SENML_JSON
from connectors.identity import Identity
from connectors.intake import Intake
from connectors.plain import PlainRecord, plain_records, take
from connectors.receipt import Receipt
from isotherm.clock import now_us
from isotherm.limits import MAX_AHEAD_US, SECOND

MAX_BYTES = 4096
"""Of a body that is small: what a turn of the event loop takes in stays bounded work."""

_Verdict = asyncio.Future[bool]


class Together:
    """What the requests of one process are taken in with."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._waiting: list[tuple[_Verdict, list[PlainRecord]]] = []

    async def store(self, body: bytes, form: str, identity: Identity) -> bool:
        """Take in a body and return when Kafka has it; False, and nothing is taken in, when it has to go alone.

        Raises:
            Unavailable: Kafka did not acknowledge within REFUSE_SECONDS; it may get the readings all the same.
        """
        if len(body) > MAX_BYTES or form not in (NDJSON, SENML_JSON):
            return False
        records = plain_records(body, identity)
        if records is None or _is_ahead(records):
            return False
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._take)
        verdict: _Verdict = loop.create_future()
        self._waiting.append((verdict, records))
        return await verdict

    def _take(self) -> None:
        waiting, self._waiting = self._waiting, []
        for receipt, taken in take(self._intake, waiting):
            if receipt is None:
                _settle(taken, False)
            else:
                _Shared(receipt, taken)


class _Shared:
    """Requests that wait for one receipt."""

    __slots__ = ("_timer", "_verdicts")

    def __init__(self, receipt: Receipt, verdicts: Sequence[_Verdict]) -> None:
        self._verdicts = verdicts
        self._timer = asyncio.get_running_loop().call_later(intake.REFUSE_SECONDS, self._give_up)
        receipt.when_settled(self._settled)

    def _settled(self) -> None:
        self._timer.cancel()
        _settle(self._verdicts, True)

    def _give_up(self) -> None:
        for verdict in self._verdicts:
            if not verdict.done():
                verdict.set_exception(intake.unacknowledged())


def _settle(verdicts: Sequence[_Verdict], is_taken: bool) -> None:
    for verdict in verdicts:
        if not verdict.done():  # else its client has left
            verdict.set_result(is_taken)


def _is_ahead(records: Sequence[PlainRecord]) -> bool:
    """Tell whether a reading is ahead of our clock, which its sender is to be told."""
    latest = (now_us() + MAX_AHEAD_US) / SECOND
    return any(record.t > latest for record in records)
