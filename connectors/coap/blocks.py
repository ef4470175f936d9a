"""Payloads that come in blocks (Block1, RFC 7959 §2.5), put together within bounds.

A payload belongs to the endpoint that sends it, the resource it goes to, and its Request-Tag (RFC 9175 §3). Block 0
begins it anew. It may have MAX_PACK_BYTES, and all of all endpoints MAX_HELD_BYTES; one that does not go on is given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from connectors.coap import numbers
from connectors.coap.options import Block, Fault, Target
from isotherm.limits import MAX_PACK_BYTES

BLOCK_SECONDS = 247.0
"""How long a payload may take from one block to the next: EXCHANGE_LIFETIME, as RFC 7959 §2.5 advises."""

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Of all payloads that are not complete."""

MAX_UNFINISHED = 10_000
"""Payloads that are not complete: each takes some memory, however little it has."""

MAX_UNFINISHED_OF_SENDER = 64
"""The same of one endpoint."""

STALLED_SECONDS = 10.0
"""When there is no room, payloads of which no block has come for so long give way."""

NOT_FOR_DATAGRAMS = 7
"""The exponent that means blocks of any length over TCP (BERT, RFC 8323 §6), and is an error in a datagram."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Blocks that are given up.

    Attributes:
        code, text: What the sender is told.
        held: What had come of the payload.
        reason: What the reject is counted by; None when the sender shall simply send it later.
    """

    code: int
    text: str
    held: bytes
    reason: str | None


_Key = tuple[Hashable, ...]  # the sender first


@dataclass(slots=True)
class _Unfinished:
    parts: list[bytes]
    size: int
    peer: str
    heard_at: float


class Blocks:
    """The payloads that are not complete."""

    def __init__(self) -> None:
        self._unfinished: dict[_Key, _Unfinished] = {}
        self._of_sender: Counter[Hashable] = Counter()
        self._given_up: list[tuple[str, bytes]] = []
        self._held = 0

    def __len__(self) -> int:
        return len(self._unfinished)

    @property
    def held(self) -> int:
        """Bytes of them."""
        return self._held

    def add(self, sender: Hashable, peer: str, target: Target, payload: bytes, now: float) -> bytes | Refusal | None:
        """Take a block.

        Args:
            sender: The endpoint or the connection.
            peer: Its name.
            target: What the request says, its Block1 option among it.
            payload: The block.
            now: s.

        Returns:
            The whole payload, what is wrong, or None when more must come.
        """
        block = target.block1
        assert block is not None
        key = sender, target.path, target.query, target.content_format, target.tag
        begun = self._pop(key)
        if block.number == 0:
            begun = _Unfinished([], 0, peer, now)
        if begun is None:
            text = f"block {block.number} of a payload of which nothing is here; begin with block 0"
            return Refusal(numbers.REQUEST_ENTITY_INCOMPLETE, text, payload, "malformed")
        begun.parts.append(payload)
        if (refusal := self._check(block, begun, payload, target.size1, self._of_sender[sender], now)) is not None:
            return refusal
        begun.size += len(payload)
        if not block.more:
            return b"".join(begun.parts)
        begun.heard_at = now
        self._of_sender[sender] += 1
        self._unfinished[key] = begun  # at the end: the first is the one that was heard of least recently
        self._held += begun.size
        return None

    def expire(self, now: float) -> list[tuple[str, bytes]]:
        """Give up payloads that do not go on; returns who sent each, and what there is of it."""
        while self._give_up_oldest(now, BLOCK_SECONDS):
            continue
        given_up, self._given_up = self._given_up, []
        return given_up

    def _give_up_oldest(self, now: float, seconds: float) -> bool:
        """Give up the payload that was heard of least recently, if that is so long ago."""
        if not self._unfinished or now - next(iter(self._unfinished.values())).heard_at <= seconds:
            return False
        late = self._pop(next(iter(self._unfinished)))
        assert late is not None
        self._given_up.append((late.peer, b"".join(late.parts)))
        return True

    def _pop(self, key: _Key) -> _Unfinished | None:
        begun = self._unfinished.pop(key, None)
        if begun is not None:
            self._held -= begun.size
            self._of_sender[key[0]] -= 1
            if not self._of_sender[key[0]]:
                del self._of_sender[key[0]]
        return begun

    def _check(
        self, block: Block, begun: _Unfinished, payload: bytes, announced: int | None, others: int, now: float
    ) -> Refusal | None:
        """Say what is wrong with a block that has been put behind the others, if anything is.

        Args:
            block: What its option says.
            begun: The others.
            payload: The block.
            announced: How large the whole is to be, if that was said.
            others: Unfinished payloads of the same sender.
            now: s.
        """

        def refusal(code: int, text: str, reason: str | None) -> Refusal:
            return Refusal(code, text, b"".join(begun.parts), reason)

        if (misfit := _misfit(block, begun.size, len(payload))) is not None:
            return refusal(misfit.code, misfit.text, "malformed")
        size = max(begun.size + len(payload), announced or 0)
        if size > MAX_PACK_BYTES:
            text = f"a payload of {size} bytes or more, expected at most {MAX_PACK_BYTES}"
            return refusal(numbers.REQUEST_ENTITY_TOO_LARGE, text, "too_large")
        if others >= MAX_UNFINISHED_OF_SENDER:
            text = f"{others} payloads of this endpoint are on their way in blocks; end one first"
            return refusal(numbers.TOO_MANY_REQUESTS, text, None)
        while self._held + begun.size + len(payload) > MAX_HELD_BYTES or len(self._unfinished) >= MAX_UNFINISHED:
            if not self._give_up_oldest(now, STALLED_SECONDS):
                text = "too many payloads are on their way in blocks; send it again later"
                return refusal(numbers.SERVICE_UNAVAILABLE, text, None)
        return None


def _misfit(block: Block, held: int, length: int) -> Fault | None:
    """Say why a block cannot follow what is held: another place, or a wrong length (RFC 7959 §2.3, §2.9.2)."""
    size = block.size
    if block.exponent == NOT_FOR_DATAGRAMS:  # over TCP: any number of blocks of 1,024 bytes at once
        is_whole = length % size == 0 if block.more else True
    else:
        is_whole = length == size if block.more else length <= size
    if not is_whole:
        return Fault(numbers.BAD_REQUEST, f"a block of {length} bytes, its option says {size}")
    if block.number * size != held:
        text = f"block {block.number} of {size} bytes after {held} bytes; begin with block 0"
        return Fault(numbers.REQUEST_ENTITY_INCOMPLETE, text)
    return None
