"""Requests and answers, however they travel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from connectors.coap import numbers
from connectors.coap.options import Option, Target, encode_uint
from isotherm.limits import MAX_PACK_BYTES

RETRY_SECONDS = 5
"""Max-Age of a 5.03: when to try again (RFC 7252 §5.9.3.4)."""

SLOW_DOWN_SECONDS = 1
"""Max-Age of a 4.29 (RFC 8516 §2)."""

MAX_DIAGNOSTIC_CHARS = 250
"""Of the text in an error (RFC 7252 §5.5.2)."""


class Answer(NamedTuple):
    """What a request is answered with."""

    code: int
    options: Sequence[Option] = ()
    payload: bytes = b""


CHANGED = Answer(numbers.CHANGED)


def error(code: int, text: str) -> Answer:
    """Return an error with a diagnostic payload, and the option that goes with its code."""
    options: Sequence[Option] = ()
    if code == numbers.SERVICE_UNAVAILABLE:
        options = [(numbers.MAX_AGE, encode_uint(RETRY_SECONDS))]
    elif code == numbers.TOO_MANY_REQUESTS:
        options = [(numbers.MAX_AGE, encode_uint(SLOW_DOWN_SECONDS))]
    elif code == numbers.REQUEST_ENTITY_TOO_LARGE:
        options = [(numbers.SIZE1, encode_uint(MAX_PACK_BYTES))]
    return Answer(code, options, text[:MAX_DIAGNOSTIC_CHARS].encode(errors="replace"))


def completed(answer: Answer, target: Target) -> Answer:
    """Add to an answer which block of the request it is about, if it came in blocks (RFC 7959 §2.3)."""
    if target.block1 is None:
        return answer
    return answer._replace(options=[*answer.options, (numbers.BLOCK1, target.block1.encode())])


def is_unwanted(target: Target, code: int) -> bool:
    """Tell whether No-Response asks that answers of this class be left out (RFC 7967 §2.1)."""
    return code != numbers.CONTINUE and bool(target.no_response >> (code >> 5) - 1 & 1)


class Observer(ABC):
    """Who has asked to hear of changes, and how it is told."""

    @property
    @abstractmethod
    def endpoint(self) -> Hashable:
        """What tells its endpoint from others."""

    @abstractmethod
    async def is_there(self, seconds: float) -> bool:
        """Tell whether it answers, within so many seconds."""

    @abstractmethod
    async def notify(self, answer: Answer, seconds: float) -> int | None:
        """Send it a notification; returns ACK or RST, or None when neither came in so many seconds."""


class Request(ABC):
    """A request that waits for its answer.

    Attributes:
        code: The method.
        target: What its options say.
        payload: What it brings.
    """

    __slots__ = ("code", "payload", "target")

    code: int
    target: Target
    payload: bytes

    is_datagram: bool
    """Whether it came in a datagram, so that answers must be short."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """Who sent it: address and port."""

    @property
    def certified(self) -> str | None:
        """The device that the peer's certificate names, if it showed one."""
        return None

    @property
    @abstractmethod
    def sender(self) -> Hashable:
        """What tells its endpoint from others."""

    @abstractmethod
    def acknowledge(self) -> None:
        """Say that the answer takes a while."""

    @abstractmethod
    def answer(self, answer: Answer) -> None:
        """Answer it, once."""

    def observer(self) -> Observer | None:
        """Return the way of further answers to it, or None where there is none."""
        return None

    def trust(self) -> None:  # noqa: B027
        """Note that its peer has shown who it is: an answer may be longer than one to an address that may be another's."""

    @abstractmethod
    def room_for_payload(self) -> int:
        """Return how many bytes of payload the answer may have."""
