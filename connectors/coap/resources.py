"""What is served: ``POST /readings``, ``POST /devices/{id}/readings`` and ``replies``, ``GET /.well-known/core``,
``/firmware/{name}/{version}`` and ``/devices/{id}/commands``.

The same over datagrams and over TCP. A request is answered when Kafka has what it brings; whatever cannot be accepted
goes to `rejects`, and the sender is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from connectors.coap import firmware, numbers
from connectors.coap.blocks import NOT_FOR_DATAGRAMS, Blocks, Refusal
from connectors.coap.observing import Observations
from connectors.coap.options import Fault, encode_uint
from connectors.coap.parts import part_of
from connectors.coap.requests import CHANGED, Answer, Request, error
from connectors.coap.taking import Taking
from connectors.formats.catalogue import SENML_CBOR, SENML_JSON, detect_body
from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE, Identity, only
from connectors.site import Site
from isotherm.errors import InvalidReading, Unauthorized, Unavailable
from isotherm.limits import MAX_REJECT_RAW_BYTES
from isotherm.names import is_device_name
from isotherm.rejects import Rejected

FORMS = {
    numbers.SENML_JSON: SENML_JSON,
    numbers.JSON: SENML_JSON,
    numbers.SENML_CBOR: SENML_CBOR,
    numbers.CBOR: SENML_CBOR,
}
"""What a content format says; without one the content does."""

LINKS = b'</readings>;rt="isotherm.readings";ct="110 112 50 60"'
"""What discovery finds (RFC 6690). The other resource has a name in its path, and cannot be listed."""

EXPIRE_SECONDS = 5.0
"""How often payloads in blocks that do not go on are looked for."""

_WELL_KNOWN = (".well-known", "core")


class Resources:
    """Answers requests of all endpoints."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._blocks = Blocks()
        self._taking = Taking(site)
        self._observations = Observations(site.dispatcher)
        self._tasks: set[asyncio.Task[None]] = set()

    async def sweep(self) -> None:
        """Give up payloads in blocks that do not go on, for ever."""
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            self.expire(time.monotonic())

    def expire(self, now: float) -> None:
        """Give up payloads in blocks that do not go on."""
        for peer, held in self._blocks.expire(now):
            self._taking.refuse(peer, Rejected("malformed", "a payload in blocks that did not come to its end", held))
        self._taking.flush()

    async def close(self, seconds: float) -> None:
        """Return when every request is answered, after so long at most."""
        await self._taking.close(seconds)

    def garbage(self, peer: str, detail: str, raw: bytes, *, reason: str = "malformed", size: int | None = None) -> None:
        """Keep what is no request as a reject; ``size`` is its length when ``raw`` is only its head."""
        self._taking.refuse(peer, Rejected(reason, detail, raw, size=size))

    def flush(self) -> None:
        """Take in what has been read. Call it when nothing more is there to be read at once."""
        self._taking.flush()

    def handle(self, request: Request) -> None:
        """Answer a request, now or later."""
        target = request.target
        if (fault := target.fault) is not None:
            if request.payload and _is_readings(target.path):
                self._refuse(request, ANYONE, fault.code, "malformed", fault.text)
            else:
                request.answer(error(fault.code, fault.text))
        elif target.path == _WELL_KNOWN:
            request.answer(_links(request))
        elif _is_firmware(target.path):
            self._start(self._firmware(request), request)
        elif _is_of_device(target.path, "commands"):
            self._start(self._observe(request, target.path[1]), request)
        elif not _is_readings(target.path) and not _is_of_device(target.path, "replies"):
            request.answer(
                error(
                    numbers.NOT_FOUND,
                    "expected /readings, /firmware/{name}/{version}, or /devices/{id}/readings, commands or replies",
                )
            )
        elif request.code != numbers.POST:
            request.answer(error(numbers.METHOD_NOT_ALLOWED, "expected POST"))
        else:
            self._post(request)

    def _post(self, request: Request) -> None:
        """Find out who sends readings."""
        target = request.target
        device = target.path[1] if len(target.path) == 3 else None
        if device is not None and not is_device_name(device):
            self._refuse(request, ANYONE, numbers.BAD_REQUEST, "name", f"{device[:80]!r} is no device name")
            return
        identity = None
        if request.certified is None:
            identity = self._site.doorkeeper.known(target.token)
        if identity is not None and (device is None or identity.may_name(device)):
            self._admit(request, identity)
        elif self._taking.is_full:
            request.answer(error(numbers.SERVICE_UNAVAILABLE, "too many requests wait for their answer"))
        else:
            self._start(self._ask(request, device), request)

    def _start(self, work: Coroutine[Any, Any, None], request: Request) -> None:
        task = asyncio.create_task(work, name=f"coap-{request.peer}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _observe(self, request: Request, device: str) -> None:
        """Let a device hear of its commands, or no longer."""
        target, observer = request.target, request.observer()
        if request.code != numbers.GET:
            request.answer(error(numbers.METHOD_NOT_ALLOWED, "expected GET"))
            return
        is_block = target.observe is None and target.block2 is not None
        if observer is None or (target.observe not in (0, 1) and not is_block):
            request.answer(error(numbers.BAD_REQUEST, "commands are observed over UDP (RFC 7641): expected Observe 0 or 1"))
            return

        async def admit() -> Identity:
            return await self._site.doorkeeper.identify(device=device, token=target.token, certified=request.certified)

        try:
            await admit()
        except Unauthorized as reason:
            request.answer(error(numbers.UNAUTHORIZED, str(reason)))
        except Unavailable as reason:
            request.answer(error(numbers.SERVICE_UNAVAILABLE, str(reason)))
        else:
            if is_block:
                request.trust()
                room = request.room_for_payload()
                request.answer(self._observations.block(observer.endpoint, device, target, room))
            elif target.observe == 1:
                self._observations.end(observer.endpoint, device)
                request.answer(Answer(numbers.CONTENT))
            else:
                request.answer(self._observations.begin(observer, device, admit, target.block2))

    async def _firmware(self, request: Request) -> None:
        """Give a device a block of an image."""
        if request.code != numbers.GET:
            request.answer(error(numbers.METHOD_NOT_ALLOWED, "expected GET"))
            return
        with self._taking.held(request):
            try:
                await self._site.doorkeeper.identify(token=request.target.token, certified=request.certified)
            except Unauthorized as reason:
                answer = error(numbers.UNAUTHORIZED, str(reason))
            except Unavailable as reason:
                answer = error(numbers.SERVICE_UNAVAILABLE, str(reason))
            else:
                request.trust()
                answer = await firmware.block(request, self._site.firmware)
        request.answer(answer)

    async def _reply(self, request: Request, identity: Identity) -> None:
        """Keep what a device says of a command."""
        with self._taking.held(request):
            try:
                await self._site.dispatcher.reply(identity, request.payload)
            except InvalidReading as refused:
                self._refuse(request, identity, numbers.BAD_REQUEST, refused.reason, refused.detail)
                self._taking.flush()
                return
            except Unavailable as reason:
                request.answer(error(numbers.SERVICE_UNAVAILABLE, str(reason)))
                return
            request.answer(CHANGED)

    async def _ask(self, request: Request, device: str | None) -> None:
        with self._taking.held(request):
            try:
                identity = await self._site.doorkeeper.identify(
                    device=device, token=request.target.token, certified=request.certified
                )
            except Unauthorized as reason:
                self._refuse(request, ANYONE, numbers.UNAUTHORIZED, "auth", str(reason))
                return
            except Unavailable as reason:
                request.answer(error(numbers.SERVICE_UNAVAILABLE, str(reason)))
                return
        self._admit(request, identity)
        self._taking.flush()

    def _admit(self, request: Request, identity: Identity) -> None:
        """Take in what a peer sends who may send it; a resource of one device takes readings of that device alone."""
        target, payload = request.target, request.payload
        is_reply = _is_of_device(target.path, "replies")
        if len(target.path) == 3:
            identity = Identity(target.path[1], identity.others) if is_reply else only(target.path[1])
        if target.content_format is not None and target.content_format not in FORMS:
            expected = "110 or 50 (SenML JSON), 112 or 60 (SenML CBOR)"
            detail = f"content format {target.content_format}, expected {expected}"
            self._refuse(request, identity, numbers.UNSUPPORTED_CONTENT_FORMAT, "format", detail)
            return
        if target.block1 is not None:
            if request.is_datagram and target.block1.exponent == NOT_FOR_DATAGRAMS:
                request.answer(error(numbers.BAD_REQUEST, "a block of exponent 7 in a datagram (RFC 7959 §2.2)"))
                return
            whole = self._blocks.add(request.sender, request.peer, target, payload, time.monotonic())
            if whole is None:
                request.answer(Answer(numbers.CONTINUE))
                return
            if isinstance(whole, Refusal):
                self._give_up(request, identity, whole)
                return
            request.payload = payload = whole
        if is_reply:
            self._start(self._reply(request, identity), request)
            return
        form = FORMS[target.content_format] if target.content_format is not None else detect_body(payload)
        self._taking.add(request, identity, form)

    def _give_up(self, request: Request, identity: Identity, refusal: Refusal) -> None:
        if refusal.reason is None:
            request.answer(error(refusal.code, refusal.text))
        else:
            request.payload = refusal.held
            self._refuse(request, identity, refusal.code, refusal.reason, refusal.text)

    def _refuse(self, request: Request, identity: Identity, code: int, reason: str, detail: str) -> None:
        """Answer with an error when the reject is on Kafka."""
        raw = request.payload
        rejected = Rejected(reason, detail, raw[:MAX_REJECT_RAW_BYTES], size=len(raw))
        self._taking.add_pieces(request, identity, "", [Decoded.nothing(rejected)], code=code)


def _is_readings(path: tuple[str, ...]) -> bool:
    return path == ("readings",) or _is_of_device(path, "readings")


def _is_firmware(path: tuple[str, ...]) -> bool:
    return len(path) == 3 and path[0] == "firmware"


def _is_of_device(path: tuple[str, ...], what: str) -> bool:
    return len(path) == 3 and path[0] == "devices" and path[2] == what


def _links(request: Request) -> Answer:
    """Answer a request for what is served, in blocks where the whole would be too much for who asks (RFC 7959 §2.4)."""
    target = request.target
    if request.code != numbers.GET:
        return error(numbers.METHOD_NOT_ALLOWED, "expected GET")
    if target.accept not in (None, numbers.LINK_FORMAT):
        return error(numbers.NOT_ACCEPTABLE, f"expected to be asked for content format {numbers.LINK_FORMAT}")
    part = part_of(target, len(LINKS), request.room_for_payload())
    if isinstance(part, Fault):
        return error(part.code, part.text)
    kind = numbers.CONTENT_FORMAT, encode_uint(numbers.LINK_FORMAT)
    if part is None:
        return Answer(numbers.CONTENT, [kind], LINKS)
    begin = part.number * part.size
    return Answer(numbers.CONTENT, [kind, (numbers.BLOCK2, part.encode())], LINKS[begin : begin + part.size])
