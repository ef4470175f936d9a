"""CoAP over TCP and TLS (RFC 8323): for gateways that send much, and for those that need TLS.

A connection is a protocol object without tasks or timers; one sweep over all sees to the time-outs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence

from connectors.coap import numbers
from connectors.coap.frames import MAX_MESSAGE_BYTES, Frame, Framer, encode_frame
from connectors.coap.options import MessageFormatError, Option, Targets, decode_options, encode_options, encode_uint
from connectors.coap.requests import Answer, Request, completed, error, is_unwanted
from connectors.coap.resources import Resources
from connectors.connections import Connection, Connections
from connectors.tls import certified_device
from isotherm.settings import Settings

SWEEP_SECONDS = 0.5
"""How often the time-outs of all connections are looked at."""

GREETING_SECONDS = 10.0
"""How long a peer may take to send its CSM, which is the first message (§5.3)."""

MESSAGE_SECONDS = 30.0
"""A message that has begun must have ended by then, else the connection is aborted."""

IDLE_SECONDS = 600.0
"""A connection that sends nothing for so long is closed; a ping keeps it."""

UNREAD_SECONDS = 30.0
"""A peer that does not read its answers for so long is disconnected."""

MAX_UNANSWERED = 256
"""Requests of one connection that wait for their answer; it is not read until they are fewer."""

_MAX_MESSAGE_SIZE, _BLOCK_WISE = 2, 4  # options of a CSM (§5.3)
_CUSTODY = 2  # option of a ping (§5.4)


class Streams:
    """All connections of this process."""

    def __init__(self, resources: Resources, settings: Settings) -> None:
        self.resources = resources
        self.targets = Targets()
        self.open: Connections[StreamConnection] = Connections(settings, "coap")
        self._is_flushing = False

    def connection(self) -> StreamConnection:
        """Return the protocol object of a new connection."""
        return StreamConnection(self)

    def flush_soon(self) -> None:
        """Take in what was read, together with what other connections send in this turn of the event loop."""
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        self.resources.flush()

    async def sweep(self) -> None:
        """Look at the time-outs of all connections, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.check(time.monotonic())

    def check(self, now: float) -> None:
        """Look at the time-outs of all connections."""
        for connection in self.open:
            connection.check(now)

    def stop_reading(self) -> None:
        """Take no new requests, and say so (§5.5); those that have come are still answered."""
        for connection in self.open:
            connection.release()

    def close(self) -> None:
        """End every connection."""
        for connection in self.open:
            connection.close()


class StreamConnection(Connection):
    """One peer."""

    __slots__ = (
        "_began_at",
        "_framer",
        "_has_greeted",
        "_is_ending",
        "_streams",
        "_unanswered",
        "certified",
    )

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams
        self._framer = Framer()
        self._has_greeted = False
        self._is_ending = False
        self._unanswered = 0
        self._began_at: float | None = None  # when the message began that has not ended
        self.certified: str | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.certified = certified_device(transport)
        if (full := self._streams.open.enter(self)) is not None:
            self._abort(full)
            return
        self._send(numbers.CSM, b"", [(_MAX_MESSAGE_SIZE, encode_uint(MAX_MESSAGE_BYTES)), (_BLOCK_WISE, b"")])

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        try:
            for frame in self._framer.feed(data):
                if self._is_ending:
                    break
                self._receive(frame)
        except MessageFormatError as problem:
            self._streams.resources.garbage(self.peer, f"no CoAP message: {problem}", data)
            self._abort(str(problem))
        self._began_at = (self._began_at or self._heard_at) if self._framer.is_inside_message else None
        self._streams.flush_soon()
        self._pause_or_resume()

    def eof_received(self) -> bool:
        self._is_ending = True
        self._close_when_answered()
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._is_ending = True
        self._streams.open.leave(self)

    # What the listener calls.

    def check(self, now: float) -> None:
        """Look at the time-outs."""
        if self._unread_at is not None and now - self._unread_at > UNREAD_SECONDS:
            if self._transport is not None:
                self._transport.abort()
        elif self._is_paused or self._is_ending:
            return
        elif self._began_at is not None and now - self._began_at > MESSAGE_SECONDS:
            text = f"a message that did not end within {MESSAGE_SECONDS:.0f} s"
            self._streams.resources.garbage(self.peer, text, self._framer.head)
            self._streams.flush_soon()
            self._abort(text)
        elif now - self._heard_at > (IDLE_SECONDS if self._has_greeted else GREETING_SECONDS):
            self._abort("nothing was sent for too long")

    def release(self) -> None:
        """Read no more; close when what was read is answered."""
        if not self._is_ending:
            self._is_ending = True
            self._send(numbers.RELEASE)
            self._close_when_answered()

    def close(self) -> None:
        """Answer nothing more."""
        if self._transport is not None:
            self._transport.close()

    # What a request calls.

    def answer(self, token: bytes, answer: Answer | None) -> None:
        """Answer a request; None says nothing."""
        self._unanswered -= 1
        if answer is not None:
            self._send(answer.code, token, answer.options, answer.payload)
        self._pause_or_resume()
        self._close_when_answered()

    # Inside.

    def _receive(self, frame: Frame) -> None:
        """Receive a message.

        Raises:
            MessageFormatError: it is none, or comes before the CSM.
        """
        if not self._has_greeted and frame.code != numbers.CSM:
            raise MessageFormatError("the first message must be a CSM (RFC 8323 §5.3)")
        if not frame.is_whole:
            self._refuse_too_large(frame)
        elif frame.code >> 5 == 7:
            self._receive_signal(frame)
        elif numbers.EMPTY < frame.code <= numbers.LAST_METHOD:
            target, payload = self._streams.targets.read(frame.rest, 0)
            request = StreamRequest(self, frame.token)
            request.code, request.target, request.payload = frame.code, target, payload
            self._unanswered += 1
            self._streams.resources.handle(request)

    def _refuse_too_large(self, frame: Frame) -> None:
        text = f"a message of {frame.size} bytes, expected at most {MAX_MESSAGE_BYTES}"
        self._streams.resources.garbage(self.peer, text, frame.rest, reason="too_large", size=frame.size)
        refusal = error(numbers.REQUEST_ENTITY_TOO_LARGE, text)
        self._send(refusal.code, frame.token, refusal.options, refusal.payload)

    def _receive_signal(self, frame: Frame) -> None:
        """Receive a signal; critical options of one that we do not know end the connection (§5.2)."""
        options, _ = decode_options(frame.rest)
        known = {numbers.CSM: (_MAX_MESSAGE_SIZE, _BLOCK_WISE), numbers.PING: (_CUSTODY,)}.get(frame.code, ())
        unknown = next((number for number, _ in options if number & 1 and number not in known), None)
        if unknown is not None and frame.code not in (numbers.RELEASE, numbers.ABORT):
            self._abort(f"critical option {unknown} is not understood")
            return
        match frame.code:
            case numbers.CSM:
                self._has_greeted = True
            case numbers.PING:
                self._send(numbers.PONG, frame.token)
            case numbers.RELEASE:
                self._is_ending = True
                self._close_when_answered()
            case numbers.ABORT:
                self._is_ending = True
                self.close()

    def _send(self, code: int, token: bytes = b"", options: Sequence[Option] = (), payload: bytes = b"") -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(code, token, encode_options(options, payload)))

    def _abort(self, text: str) -> None:
        """Say why, and close (§5.6)."""
        self._is_ending = True
        self._send(numbers.ABORT, payload=text.encode())
        self.close()

    def _must_pause(self) -> bool:
        return self._is_ending or self._unread_at is not None or self._unanswered >= MAX_UNANSWERED

    def _close_when_answered(self) -> None:
        if self._is_ending and not self._unanswered:
            self.close()


class StreamRequest(Request):
    """A request that came over a connection."""

    __slots__ = ("_connection", "_token")

    is_datagram = False

    def __init__(self, connection: StreamConnection, token: bytes) -> None:
        self._connection = connection
        self._token = token

    @property
    def peer(self) -> str:
        return self._connection.peer

    @property
    def certified(self) -> str | None:
        return self._connection.certified

    @property
    def sender(self) -> Hashable:
        return self._connection

    def acknowledge(self) -> None:
        """Do nothing: TCP does."""

    def answer(self, answer: Answer) -> None:
        unwanted = is_unwanted(self.target, answer.code)
        self._connection.answer(self._token, None if unwanted else completed(answer, self.target))

    def room_for_payload(self) -> int:
        return MAX_MESSAGE_BYTES
