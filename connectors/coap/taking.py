"""Taking in: what requests bring goes to intake, and each is answered when Kafka has it.

Plain requests that were read in one turn of the event loop go in together and are waited for with one receipt. If a
reading among them cannot be accepted, they are halved until it is alone, so that nobody but its sender is told. All
others go alone, a task each.

A request whose answer takes longer than a peer waits for an acknowledgement is acknowledged first (RFC 7252 §5.2.2); one
that Kafka does not take in time is refused with 5.03, and may be stored all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from connectors import intake
from connectors.coap import numbers
from connectors.coap.requests import CHANGED, Answer, Request, error
from connectors.formats.catalogue import SENML_JSON
from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE, Identity
from connectors.plain import PlainRecord, plain_records, take
from connectors.receipt import Receipt
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.logs import Throttle
from isotherm.rejects import Rejected

ACKNOWLEDGE_SECONDS = 1.0
"""After so long a request is acknowledged without its answer: peers send it again after 2 s (ACK_TIMEOUT)."""

MAX_WAITING = 20_000
"""Requests that wait for their answer; beyond, they are refused with 5.03."""

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of their payloads."""

MESSAGE = "coap"
"""The form of rejects that are no CoAP message: there is no decoder of that name."""

_CODES = {
    "format": numbers.UNSUPPORTED_CONTENT_FORMAT,
    "too_large": numbers.REQUEST_ENTITY_TOO_LARGE,
    "auth": numbers.UNAUTHORIZED,
}
"""Reason of a reject → code; others are 4.00."""

_Plain = tuple[tuple[Request, Identity], list[PlainRecord]]

log = logging.getLogger(__name__)


class Taking:
    """What one process takes in."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._plain: list[_Plain] = []
        self._waiting = 0
        self._waiting_bytes = 0
        self._answered = asyncio.Event()
        self._answered.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: defaultdict[str, list[Rejected]] = defaultdict(list)
        self._throttle = Throttle()

    @property
    def is_full(self) -> bool:
        """Whether no further request can wait."""
        return self._waiting >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES

    async def close(self, seconds: float) -> None:
        """Return when every request is answered, after so long at most."""
        self.flush()
        try:
            async with asyncio.timeout(seconds if self._waiting else 0):
                await self._answered.wait()
        except TimeoutError:
            log.warning("stopped while %d requests were not answered", self._waiting)

    def refuse(self, peer: str, rejected: Rejected) -> None:
        """Keep what belongs to no request as a reject; at the next `flush` at the latest."""
        self._refused[peer].append(rejected)

    def add(self, request: Request, identity: Identity, form: str) -> None:
        """Take in what a request brings; at the next `flush` at the latest."""
        if self.is_full:
            request.answer(error(numbers.SERVICE_UNAVAILABLE, "too many requests wait for their answer"))
            return
        records = plain_records(request.payload, identity) if form == SENML_JSON else None
        if records is not None:
            self._begin([request])
            self._plain.append(((request, identity), records))
        else:
            pieces = self._site.catalogue.decoders[form](request.payload, now_us())
            self.add_pieces(request, identity, form, pieces)

    def add_pieces(
        self, request: Request, identity: Identity, form: str, pieces: Iterable[Decoded], code: int | None = None
    ) -> None:
        """Take in what a request brings, alone.

        Args:
            request: Is answered when Kafka has it.
            identity: For whom its peer may speak.
            form: Name of the decoder.
            pieces: What it yields.
            code: Of the answer, if something is refused; None goes by the reason.
        """
        if self.is_full:
            request.answer(error(numbers.SERVICE_UNAVAILABLE, "too many requests wait for their answer"))
            return
        self._begin([request])
        self._store_soon(request, identity, form, pieces, code)

    def flush(self) -> None:
        """Take in the plain requests that were added."""
        plain, self._plain = self._plain, []
        if plain:
            self._take(plain)
        if self._refused:
            self._take_refused()

    @contextmanager
    def held(self, request: Request) -> Iterator[None]:
        """Count a request as waiting, and acknowledge it when it waits for long, for the length of the block."""
        self._begin([request])
        timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, request.acknowledge)
        try:
            yield
        finally:
            timer.cancel()
            self._end([request])

    def _take_refused(self) -> None:
        """Put rejects on their way, those of a peer in one record."""
        refused, self._refused = self._refused, defaultdict(list)
        for peer, rejects in refused.items():
            decoded = Decoded.nothing(*rejects)
            is_kept = self._site.intake.take(decoded, Receipt(), peer=peer, identity=ANYONE, form=MESSAGE)
            if not is_kept and (missed := self._throttle("refused")) is not None:
                log.warning("what %s sent and was no message is not kept, as Kafka is away (%d more peers)", peer, missed)

    def _take(self, plain: Sequence[_Plain]) -> None:
        """Take in several requests, as many together as can be."""
        for receipt, taken in take(self._site.intake, plain):
            if receipt is not None:
                _Waiting(self, [request for request, _ in taken], receipt)
                continue
            for request, identity in taken:
                pieces = self._site.catalogue.decoders[SENML_JSON](request.payload, now_us())
                self._store_soon(request, identity, SENML_JSON, pieces, None)

    def _store_soon(
        self, request: Request, identity: Identity, form: str, pieces: Iterable[Decoded], code: int | None
    ) -> None:
        task = asyncio.create_task(self._store(request, identity, form, pieces, code), name=f"coap-store-{request.peer}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store(
        self, request: Request, identity: Identity, form: str, pieces: Iterable[Decoded], code: int | None
    ) -> None:
        timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, request.acknowledge)
        try:
            receipt = await self._site.intake.store(pieces, peer=request.peer, identity=identity, form=form)
        except Unavailable as reason:
            self.answer([request], error(numbers.SERVICE_UNAVAILABLE, str(reason)))
        else:
            self.answer([request], _answer_of(receipt, code))
        finally:
            timer.cancel()

    def answer(self, requests: Sequence[Request], answer: Answer) -> None:
        """Answer requests that have waited."""
        self._end(requests)
        for request in requests:
            request.answer(answer)

    def _begin(self, requests: Sequence[Request]) -> None:
        self._waiting += len(requests)
        self._waiting_bytes += sum(len(request.payload) for request in requests)
        self._answered.clear()

    def _end(self, requests: Sequence[Request]) -> None:
        self._waiting -= len(requests)
        self._waiting_bytes -= sum(len(request.payload) for request in requests)
        if not self._waiting:
            self._answered.set()


class _Waiting:
    """Requests that wait for one receipt."""

    __slots__ = ("_requests", "_taking", "_timer")

    def __init__(self, taking: Taking, requests: Sequence[Request], receipt: Receipt) -> None:
        self._taking = taking
        self._requests = requests
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(ACKNOWLEDGE_SECONDS, self._acknowledge)
        receipt.when_settled(self._settled)

    def _settled(self) -> None:
        self._timer.cancel()
        requests, self._requests = self._requests, ()
        self._taking.answer(requests, CHANGED)

    def _acknowledge(self) -> None:
        left = max(0.0, intake.REFUSE_SECONDS - ACKNOWLEDGE_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(left, self._give_up)
        for request in self._requests:
            request.acknowledge()

    def _give_up(self) -> None:
        """Refuse them: it is not known whether Kafka will have them."""
        requests, self._requests = self._requests, ()
        self._taking.answer(requests, error(numbers.SERVICE_UNAVAILABLE, str(intake.unacknowledged())))


def _answer_of(receipt: Receipt, code: int | None) -> Answer:
    if not receipt.rejected:
        return CHANGED
    first = receipt.refusals[0]
    text = f"{receipt.rejected} refused, {receipt.accepted} kept; {first.reason}: {first.detail}"
    return error(code or _CODES.get(first.reason, numbers.BAD_REQUEST), text)
