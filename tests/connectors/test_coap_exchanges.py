"""Exchanges: what counts as the same request, for how long, and how many are remembered."""

from __future__ import annotations

import pytest

from connectors.coap import exchanges
from connectors.coap.exchanges import EXCHANGE_LIFETIME, HALF_OF_IDS, NON_LIFETIME, Exchanges, key_of
from connectors.coap.numbers import CON, NON
from connectors.coap.sockets import Address

HERE, THERE = Address(("192.0.2.1", 5683)), Address(("192.0.2.1", 5684))


def test_the_same_bytes_of_the_same_endpoint_are_the_same_request() -> None:
    table = Exchanges()
    begun = table.begin(key_of(HERE, b"a"), HERE, CON, 0.0)
    assert table.find(key_of(HERE, b"a")) is begun
    assert table.find(key_of(HERE, b"b")) is None
    assert table.find(key_of(THERE, b"a")) is None


def test_the_same_bytes_are_a_new_request_when_half_of_all_ids_were_used_since() -> None:
    table = Exchanges()
    table.begin(key_of(HERE, b"first"), HERE, CON, 0.0)
    for number in range(HALF_OF_IDS):
        table.begin(key_of(HERE, b"%d" % number), HERE, CON, 0.0)
    assert table.find(key_of(HERE, b"first")) is not None
    table.begin(key_of(HERE, b"one more"), HERE, CON, 0.0)
    assert table.find(key_of(HERE, b"first")) is None


@pytest.mark.parametrize(("kind", "lifetime"), [(CON, EXCHANGE_LIFETIME), (NON, NON_LIFETIME)])
def test_a_request_is_forgotten_when_it_cannot_come_again(kind: int, lifetime: float) -> None:
    table = Exchanges()
    table.begin(key_of(HERE, b"a"), HERE, kind, 0.0)
    table.expire(lifetime)
    assert len(table) == table.endpoint_count() == 1
    table.expire(lifetime + 1)
    assert len(table) == table.endpoint_count() == 0


def test_a_request_that_came_anew_outlives_the_old_one_of_the_same_bytes() -> None:
    table = Exchanges()
    key = key_of(HERE, b"a")
    table.begin(key, HERE, CON, 0.0)
    again = table.begin(key, HERE, CON, 100.0)
    table.expire(EXCHANGE_LIFETIME + 1)
    assert table.find(key) is again
    table.expire(EXCHANGE_LIFETIME + 101)
    assert len(table) == table.endpoint_count() == 0


def test_the_oldest_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "MAX_EXCHANGES", 10)
    table = Exchanges()
    for number in range(100):
        endpoint = Address(("192.0.2.1", number))
        table.begin(key_of(endpoint, b"a"), endpoint, (CON, NON)[number % 2], float(number))
    assert len(table) == table.endpoint_count() == 10
    assert table.find(key_of(Address(("192.0.2.1", 89)), b"a")) is None
    assert table.find(key_of(Address(("192.0.2.1", 90)), b"a")) is not None


def test_the_oldest_are_forgotten_when_answers_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "MAX_REPLY_BYTES", 1000)
    table = Exchanges()
    for number in range(100):
        begun = table.begin(key_of(HERE, b"%d" % number), HERE, CON, 0.0)
        table.settle(begun, b"x" * 100)
    assert len(table) == 10
    assert table.find(key_of(HERE, b"99")) is not None


def test_what_was_forgotten_before_its_answer_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "MAX_EXCHANGES", 1)
    table = Exchanges()
    first = table.begin(key_of(HERE, b"1"), HERE, CON, 0.0)
    table.begin(key_of(HERE, b"2"), HERE, CON, 0.0)
    table.settle(first, b"x" * 100)
    assert first.reply == b"" and table._reply_bytes == 0
