"""Payloads in blocks: put together, within bounds."""

from __future__ import annotations

import pytest

from connectors.coap import blocks, numbers
from connectors.coap.blocks import BLOCK_SECONDS, STALLED_SECONDS, Blocks, Refusal
from connectors.coap.options import Block, Target


def add(
    table: Blocks,
    number: int,
    *,
    more: bool,
    payload: bytes = b"x" * 16,
    exponent: int = 0,
    sender: str = "a",
    now: float = 0.0,
    **fields: object,
) -> bytes | Refusal | None:
    target = Target(path=("readings",), block1=Block(number, more, exponent), **fields)  # type: ignore[arg-type]
    return table.add(sender, f"{sender}:1", target, payload, now)


def refused(outcome: bytes | Refusal | None) -> Refusal:
    assert isinstance(outcome, Refusal)
    return outcome


def test_blocks_are_put_together() -> None:
    table = Blocks()
    assert add(table, 0, more=True, payload=b"0123456789abcdef") is None
    assert add(table, 1, more=True, payload=b"ghijklmnopqrstuv") is None
    assert table.held == 32
    assert add(table, 2, more=False, payload=b"end") == b"0123456789abcdefghijklmnopqrstuvend"
    assert len(table) == table.held == 0


def test_payloads_of_senders_resources_and_request_tags_do_not_mix() -> None:
    table = Blocks()
    kinds: list[dict[str, object]] = [{"sender": "a"}, {"sender": "b"}, {"query": ("token=x",)}, {"tag": b"1"}]
    for kind in kinds:
        assert add(table, 0, more=True, **kind) is None  # type: ignore[arg-type]
    assert len(table) == 4
    for kind in kinds:
        assert add(table, 1, more=False, payload=b"", **kind) == b"x" * 16  # type: ignore[arg-type]


def test_block_0_begins_anew() -> None:
    table = Blocks()
    add(table, 0, more=True)
    add(table, 0, more=True, payload=b"y" * 16)
    assert add(table, 1, more=False, payload=b"!") == b"y" * 16 + b"!"
    assert table.held == 0


def test_the_size_of_blocks_may_become_smaller() -> None:
    table = Blocks()
    assert add(table, 0, more=True, payload=b"x" * 32, exponent=1) is None
    assert add(table, 2, more=False, payload=b"y", exponent=0) == b"x" * 32 + b"y"


def test_a_block_that_does_not_follow_gives_the_payload_up() -> None:
    table = Blocks()
    assert refused(add(table, 1, more=False)).code == numbers.REQUEST_ENTITY_INCOMPLETE
    add(table, 0, more=True)
    refusal = refused(add(table, 2, more=False))
    assert refusal.code == numbers.REQUEST_ENTITY_INCOMPLETE and refusal.reason == "malformed"
    assert refusal.held == b"x" * 32  # nothing of what came is lost to `rejects`
    assert len(table) == table.held == 0


@pytest.mark.parametrize(("more", "length", "exponent"), [(True, 15, 0), (True, 17, 0), (False, 17, 0), (True, 1000, 7)])
def test_a_block_of_another_length_than_its_option_says_is_refused(more: bool, length: int, exponent: int) -> None:
    assert refused(add(Blocks(), 0, more=more, payload=b"x" * length, exponent=exponent)).code == numbers.BAD_REQUEST


def test_over_tcp_a_block_may_be_many() -> None:
    table = Blocks()
    assert add(table, 0, more=True, payload=b"x" * 4096, exponent=7) is None
    assert add(table, 4, more=False, payload=b"y" * 3000, exponent=7) == b"x" * 4096 + b"y" * 3000


def test_a_payload_that_grows_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_PACK_BYTES", 40)
    table = Blocks()
    add(table, 0, more=True)
    add(table, 1, more=True)
    refusal = refused(add(table, 2, more=True))
    assert refusal.code == numbers.REQUEST_ENTITY_TOO_LARGE and refusal.reason == "too_large"
    assert len(table) == table.held == 0


def test_a_payload_that_says_it_will_be_too_large_is_refused_at_once() -> None:
    assert refused(add(Blocks(), 0, more=True, size1=2**30)).code == numbers.REQUEST_ENTITY_TOO_LARGE


def test_what_all_payloads_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_HELD_BYTES", 64)
    table = Blocks()
    for sender in "abcd":
        assert add(table, 0, more=True, sender=sender) is None
    refusal = refused(add(table, 0, more=True, sender="e"))
    assert refusal.code == numbers.SERVICE_UNAVAILABLE and refusal.reason is None
    assert add(table, 1, more=False, payload=b"", sender="a") == b"x" * 16
    assert add(table, 0, more=True, sender="e") is None


def test_how_many_payloads_are_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_UNFINISHED", 2)
    table = Blocks()
    assert [add(table, 0, more=True, sender=sender) for sender in "ab"] == [None, None]
    assert refused(add(table, 0, more=True, sender="c")).code == numbers.SERVICE_UNAVAILABLE


def test_one_that_stalls_gives_way_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_UNFINISHED", 2)
    table = Blocks()
    assert [add(table, 0, more=True, sender=sender) for sender in "ab"] == [None, None]
    assert add(table, 1, more=True, sender="b", now=STALLED_SECONDS) is None
    assert add(table, 0, more=True, sender="c", now=STALLED_SECONDS + 1) is None
    assert table.expire(STALLED_SECONDS + 1) == [("a:1", b"x" * 16)]
    assert add(table, 2, more=False, payload=b"", sender="b", now=STALLED_SECONDS + 1) == b"x" * 32


def test_how_many_payloads_one_endpoint_has_on_their_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_UNFINISHED_OF_SENDER", 2)
    table = Blocks()
    for tag in (b"1", b"2"):
        assert add(table, 0, more=True, tag=tag) is None
    assert refused(add(table, 0, more=True, tag=b"3")).code == numbers.TOO_MANY_REQUESTS
    assert add(table, 0, more=True, sender="b") is None
    assert add(table, 1, more=True, tag=b"1") is None
    assert add(table, 2, more=False, tag=b"1") == b"x" * 48
    assert add(table, 0, more=True, tag=b"3") is None


def test_a_payload_that_does_not_go_on_is_given_up() -> None:
    table = Blocks()
    add(table, 0, more=True, sender="slow")
    add(table, 0, more=True, sender="steady", now=1.0)
    add(table, 1, more=True, sender="steady", now=200.0)
    assert table.expire(BLOCK_SECONDS) == []
    assert table.expire(BLOCK_SECONDS + 1.5) == [("slow:1", b"x" * 16)]
    assert len(table) == 1 and table.held == 32
