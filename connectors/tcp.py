"""TCP: lines of SenML (NDJSON), InfluxDB line protocol or Graphite plaintext; the first line shows which.

    {"n":"room-1/temperature","u":"Cel","v":21.5,"t":1790000000.25}
    temperature,device=room-1 value=21.5 1790000000250000000
    room-1.temperature 21.5 1790000000

A connection may begin with a line that says who it is and asks for acknowledgements:

    {"hello":{"device":"room-1","token":"…","ack":true,"commands":true}}

and is then answered: ``{"ack":n}`` when Kafka has n readings of this connection, ``{"error":{…}}`` for each input that was
refused (with ``count`` and the first of them when there were several in one chunk). A bad line costs that line and nothing
else; after one that is too long, the next newline begins anew. When Kafka is away the connection is not read any further,
and is told so. A device that asks for its commands gets each as a line, and says what came of it; ``replied`` tells it that
Kafka has that:

    ← {"command":{"id":"…","device":"room-1","name":"blink","parameters":{},"deadline":1790000060.0,"timeout":59.9}}
    → {"reply":{"id":"…","result":null}}
    ← {"replied":"…"}

A connection is a protocol object without tasks or buffers of its own, so that ten thousand quiet ones cost little; one sweep
a second over all of them sees to the time-outs. What a connection sent is taken in piece by piece, one a turn of the event
loop, and it may have only so much in flight: so one that floods, or sends garbage, leaves the others their turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from connectors.answers import Answer, Answers, error
from connectors.connections import Connection, Connections, served
from connectors.dispatch import WHOSE_COMMANDS, Given, line, not_kept
from connectors.formats.catalogue import GRAPHITE, INFLUX, NDJSON, detect
from connectors.formats.decoded import Decoded
from connectors.formats.lines import MAX_CHUNK_BYTES, LineFramer
from connectors.hello import Hello, hello_in
from connectors.identity import ANYONE, HELLO_SECONDS, RECHECK_SECONDS, Identity
from connectors.receipt import Receipt
from connectors.replies import reply_in
from connectors.site import Site
from connectors.tls import certified_device
from isotherm.clock import now_us
from isotherm.commands import Command
from isotherm.errors import InvalidReading, IsothermError, Unauthorized, Unavailable
from isotherm.rejects import Rejected

SWEEP_SECONDS = 0.5
"""How often the time-outs of all connections are looked at."""

IDLE_SECONDS = 600.0
"""A connection that sends nothing for so long is closed."""

LINE_SECONDS = 30.0
"""A line that has begun must have ended by then, else it is refused and the connection closed."""

UNREAD_SECONDS = 30.0
"""A peer that asks for acknowledgements and does not read them for so long is disconnected."""

CLOSE_SECONDS = 5.0
"""How long a stop waits for Kafka and for peers to take their answers."""

MAX_UNACKNOWLEDGED = 100_000
"""Readings of one connection that wait for Kafka; then it is not read until they are fewer."""

SHARED_UNACKNOWLEDGED = 20_000
"""The same while other connections wait too: a flood fills the packs that the others' readings wait for."""

MAX_REPLYING = 32
"""Replies of one connection that are on their way to Kafka; those after them wait, and it is not read."""

_FORMS = {"senml": NDJSON, "influx": INFLUX, "graphite": GRAPHITE, "auto": None}


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where. At its end, what was read is taken in and acknowledged."""
    settings = site.settings
    listener = _Listener(site)
    sweeping = asyncio.create_task(listener.sweep(), name="tcp-sweep")
    plain, secure = ("tcp", settings.tcp_port), ("tls", settings.tcp_tls_port)
    try:
        async with served(settings, listener.connection, plain=plain, secure=secure) as where:
            yield where
    finally:
        await listener.close()
        sweeping.cancel()


class _Listener:
    """All connections of this process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.form = _FORMS[site.settings.tcp_format]
        self.open: Connections[_Connection] = Connections(site.settings, "tcp")
        self._waiting = 0
        self._closing: asyncio.Event | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def window(self) -> int:
        """How many readings of one connection may wait for Kafka now."""
        return MAX_UNACKNOWLEDGED if self._waiting <= 1 else SHARED_UNACKNOWLEDGED

    def waits(self, change: int) -> None:
        """Note that a connection begins (1) or ceases (-1) to wait for Kafka."""
        self._waiting += change

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside."""
        task = asyncio.create_task(work, name="tcp-reply")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def connection(self) -> _Connection:
        """Return the protocol object of a new connection."""
        return _Connection(self)

    def leave(self, connection: _Connection) -> None:
        """Note that a connection has ended."""
        self.open.leave(connection)
        if self._closing is not None and not self.open:
            self._closing.set()

    async def sweep(self) -> None:
        """Look at the time-outs of all connections, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            is_away, now = self.site.intake.is_away, _now()
            for connection in self.open:
                connection.check(now, is_away)

    async def close(self) -> None:
        """End every connection when what it sent is answered; one that takes too long is cut off."""
        self._closing = asyncio.Event()
        for connection in self.open:
            connection.finish()
        try:
            async with asyncio.timeout(CLOSE_SECONDS if self.open else 0):
                await self._closing.wait()
        except TimeoutError:
            for connection in self.open:
                connection.abort()


class _Connection(Connection):
    """One peer."""

    __slots__ = (
        "_acknowledges",
        "_answers",
        "_asking",
        "_began",
        "_commanded",
        "_form",
        "_framer",
        "_has_left",
        "_hello",
        "_identified_at",
        "_identity",
        "_inbox",
        "_is_ending",
        "_is_waiting",
        "_line_at",
        "_listener",
        "_piece",
        "_pieces",
        "_replies",
        "_replying",
        "_told_away",
    )

    def __init__(self, listener: _Listener) -> None:
        super().__init__()
        self._listener = listener
        self._framer = LineFramer()
        self._form = listener.form
        self._identity: Identity | None = None
        self._asking: asyncio.Task[None] | None = None  # for the identity
        self._began = False  # the first line was seen
        self._acknowledges = False
        self._commanded: str | None = None  # the device whose commands it gets
        self._replying = 0  # replies that are on their way to Kafka
        self._replies: list[bytes] = []  # that wait for their turn, or until it is known whose they are
        self._answers = Answers()
        self._inbox: list[bytes | Decoded] = []  # complete lines, and rejects
        self._pieces: Iterator[Decoded] = iter(())  # of the lines that are being taken in
        self._piece: Decoded | None = None  # decoded and not taken in
        self._is_waiting = False  # for its turn or for room
        self._is_ending = False
        self._has_left = False
        self._told_away = False
        self._hello: Hello | None = None
        self._identified_at = 0.0
        self._line_at: float | None = None  # when the unfinished line began

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if (full := self._listener.open.enter(self)) is not None:
            self._say(error("busy", full))
            transport.close()
            return
        certified = certified_device(transport)
        if certified is not None or self._listener.site.doorkeeper.is_open:
            self._identify(Hello(), certified)

    def data_received(self, data: bytes) -> None:
        self._heard_at = _now()
        for at in range(0, len(data), MAX_CHUNK_BYTES):
            self._feed(*self._framer.feed(data[at : at + MAX_CHUNK_BYTES]))
        if not self._framer.is_inside_line:
            self._line_at = None
        elif self._line_at is None or b"\n" in data:
            self._line_at = self._heard_at
        self._work()

    def eof_received(self) -> bool:
        self.finish()
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._acknowledges = False
        self._transport = None
        if self._commanded is not None:
            self._listener.site.dispatcher.leave(self._commanded, self)
        self.finish(is_broken=exc is not None)  # what was read is taken in all the same; until then it counts as open
        self._close_when_answered()

    # What the listener calls.

    def check(self, now: float, is_away: bool) -> None:
        """Look at the time-outs."""
        if self._unread_at is not None and now - self._unread_at > UNREAD_SECONDS:
            self.abort()
        elif self._line_at is not None and now - self._line_at > LINE_SECONDS and not self._is_paused:
            half, rejects = self._framer.finish()
            if half:
                rejects.append(Rejected("malformed", f"a line that did not end within {LINE_SECONDS:.0f} s", half))
            self._feed(b"", rejects)
            self.finish()
        elif now - self._heard_at > (IDLE_SECONDS if self._identity else HELLO_SECONDS) and not self._is_paused:
            self.finish()
        elif self._is_to_be_asked_again(now):
            self._identify(self._hello or Hello(), certified_device(self._transport))
            self._pause_or_resume()
        elif is_away and not self._told_away and (self._answers or self._piece is not None):
            self._told_away = True
            self._say(error("unavailable", "Kafka is away; nothing more is read until it is back"))
        elif not is_away:
            self._told_away = False

    def _is_to_be_asked_again(self, now: float) -> bool:
        """Tell whether who the peer is was shown so long ago that its token may have been revoked since."""
        known = self._identity is not None and self._asking is None and not self._is_ending
        return known and not self._listener.site.doorkeeper.is_open and now - self._identified_at > RECHECK_SECONDS

    def finish(self, *, is_broken: bool = False) -> None:
        """Read no more; close when what was read is answered.

        A last line without a newline may have been cut, and a number in it be another one. Only JSON shows where it ends.
        """
        if not self._is_ending:
            last, rejects = self._framer.finish()
            if last.strip() and (is_broken or last.lstrip()[:1] not in (b"{", b"[")):
                rejects.append(Rejected("malformed", "the connection ended within this line, before a newline", last))
                last = b""
            self._feed(last, rejects)
            self._is_ending = True
            if self._identity is None and self._asking is None:
                self._turn_away(Unauthorized(f"the peer did not say who it is within {HELLO_SECONDS:.0f} s"))
            self._work()

    def abort(self) -> None:
        """Answer nothing more."""
        self._acknowledges = False
        if self._transport is not None:
            self._transport.abort()

    # Who it is.

    def _identify(self, hello: Hello, certified: str | None) -> None:
        """Find out for whom the peer may speak; until that is known nothing is taken in."""
        doorkeeper = self._listener.site.doorkeeper
        self._hello = hello

        async def ask() -> None:
            try:
                self._identity = await doorkeeper.identify(device=hello.device, token=hello.token, certified=certified)
            except Unauthorized as reason:
                self._turn_away(reason)
            except Unavailable as reason:
                if self._identity is None:
                    self._turn_away(reason)
            self._asking = None
            self._identified_at = _now()
            self._take_commands()
            self._keep_replies()
            self._work()

        if doorkeeper.is_open and certified is None and hello.device is None:
            self._identity = ANYONE
        else:
            self._asking = asyncio.create_task(ask(), name=f"tcp-identify-{self.peer}")

    def _turn_away(self, reason: IsothermError) -> None:
        """Keep what an unknown peer sent as a reject, tell it, and close."""
        word = "auth" if isinstance(reason, Unauthorized) else "unavailable"
        lines = b"".join(one for one in self._inbox if isinstance(one, bytes)).splitlines()
        lines += self._replies
        self._replies.clear()
        framed = [one for one in self._inbox if isinstance(one, Decoded)]
        refused = [Rejected(word, str(reason), line) for line in lines if line.strip()]
        self._inbox = [Decoded.nothing(*refused), *framed] if refused else [*framed]
        if not self._inbox:
            self._say(error(word, str(reason)))
        # Who was known keeps its name: what is decoded already waits to be taken in, and must speak for nobody else.
        self._identity, self._is_ending, self._acknowledges = self._identity or ANYONE, True, True

    # Commands.

    def _take_commands(self) -> None:
        """Let commands come this way, if that was asked for and it is known whose they are."""
        wanted = self._hello is not None and self._hello.commands and not self._is_ending
        if not wanted or self._identity is None or self._commanded is not None or self._transport is None:
            return
        if self._identity.device is None:
            self._say(WHOSE_COMMANDS)
            return
        self._commanded = self._identity.device
        self._listener.site.dispatcher.enter(self._commanded, self)

    async def give(self, command: Command) -> Given:
        """Write a command to the peer."""
        if self._transport is None or self._transport.is_closing() or self._is_ending or self._unread_at is not None:
            return "returned"
        self._transport.write(line(command) + b"\n")
        return "sent"

    def _take_replies(self, lines: bytes) -> bytes:
        """Keep the replies among some lines; returns the others."""
        others = []
        for one in lines.splitlines(keepends=True):
            reply = reply_in(one)
            if reply is None:
                others.append(one)
            else:
                self._replies.append(reply)
        self._keep_replies()
        return b"".join(others)

    def _keep_replies(self) -> None:
        """Keep the replies that came, as many at a time as may be, when it is known for whom the peer may speak."""
        while self._replies and self._replying < MAX_REPLYING and self._asking is None:
            self._replying += 1
            self._listener.run(self._reply(self._replies.pop(0)))

    async def _reply(self, data: bytes) -> None:
        """Keep a reply; one that is refused is kept as a reject, and counts as no reading."""
        site, identity = self._listener.site, self._identity or ANYONE
        try:
            id = await site.dispatcher.reply(identity, data)
        except InvalidReading as refused:
            self._say(await site.refuse(refused, data, peer=self.peer, identity=identity))
        except Unavailable as away:
            self._say(not_kept(away))
        else:
            if self._acknowledges:
                self._say({"replied": id})
        finally:
            self._replying -= 1
            self._keep_replies()
            self._work()

    # Taking in.

    def _feed(self, lines: bytes, rejects: list[Rejected]) -> None:
        """Put complete lines into the inbox."""
        if rejects:
            self._inbox.append(Decoded.nothing(*rejects))
        if lines and not self._began:
            lines = self._begin(lines)
        if self._hello is not None and self._hello.commands and b'"reply"' in lines:
            lines = self._take_replies(lines)
        if lines:
            self._inbox.append(lines)

    def _begin(self, lines: bytes) -> bytes:
        """Take the hello, if the first line is one; returns the lines after it."""
        self._began = True
        first, _, rest = lines.partition(b"\n")
        hello = hello_in(first)
        if hello is None:
            hello = Hello()  # the line is taken in: if it was to be a hello, it becomes a reject that says what is wrong
        else:
            lines = rest
        self._acknowledges = hello.ack
        if self._identity is None or hello.device is not None:
            self._identify(hello, certified_device(self._transport))
        elif hello.commands:
            self._hello = hello
            self._take_commands()
        return lines

    def _work(self) -> None:
        """Take in what was read: as much as is ready and then, in later turns of the event loop, a piece a turn."""
        began = _now()
        while not self._is_waiting and self._asking is None and self._identity is not None:
            piece = self._piece or self._next_piece()
            if piece is None:
                break
            self._take(piece)
            if self._piece is not None and not self._is_waiting:
                # Pause for as long as it took: who sends what is slow to read has half of the time at most.
                self._is_waiting = True
                asyncio.get_running_loop().call_later(_now() - began, self._go_on)
        self._pause_or_resume()
        self._close_when_answered()

    def _go_on(self) -> None:
        self._is_waiting = False
        self._work()

    def _take(self, piece: Decoded) -> None:
        intake, receipt = self._listener.site.intake, Receipt()
        identity, form = self._identity or ANYONE, self._form or NDJSON
        if not intake.take(piece, receipt, peer=self.peer, identity=identity, form=form):
            self._piece = piece
            self._is_waiting = True
            intake.room.when_given(self._go_on)
            return
        self._piece = next(self._pieces, None)
        if not receipt.is_durable:
            receipt.when_settled(self._answer)
            if not self._answers:
                self._listener.waits(1)
            self._answers.expect(receipt)

    def _next_piece(self) -> Decoded | None:
        while self._inbox:
            lines = self._inbox.pop(0)
            if isinstance(lines, Decoded):
                return lines
            if self._form is None:  # the first line that looks like something decides
                self._form = next(filter(None, map(detect, lines.split(b"\n"))), None)
            self._pieces = self._listener.site.catalogue.decoders[self._form or NDJSON](lines, now_us())
            if (piece := next(self._pieces, None)) is not None:
                return piece
        return None

    def _must_pause(self) -> bool:
        return (
            self._is_ending
            or self._is_waiting
            or self._asking is not None
            or self._unread_at is not None
            or bool(self._replies)
            or self._answers.unacknowledged > self._listener.window
        )

    # Answering.

    def _answer(self) -> None:
        """Say what became of the inputs that are durable."""
        answers = self._answers.due()
        if not self._answers:
            self._listener.waits(-1)
        if answers and self._acknowledges:
            self._say(*answers)
        self._pause_or_resume()
        self._close_when_answered()

    def _say(self, *answers: Answer) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers))

    def _close_when_answered(self) -> None:
        is_busy = self._inbox or self._piece or self._answers or self._asking or self._replies or self._replying
        if is_busy or not self._is_ending:
            return
        if self._transport is not None:
            self._transport.close()
        elif not self._has_left:
            self._has_left = True
            self._listener.leave(self)


def _now() -> float:
    return time.monotonic()
