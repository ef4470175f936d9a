"""When a request is sent again: the steps of operations, answered by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from isotherm.client import Conflict, Fault, Invalid, NotFound, NotUnderstood, RateLimited, ServerFailed, Unavailable
from isotherm.client.errors import ClientError
from isotherm.client.exchange import ATTEMPTS, Answer, NoAnswer, Request, Steps, Wait, attempted
from isotherm.client.operations import alarms, devices

AWAY = NoAnswer("nobody is there", was_sent=False)
LOST = NoAnswer("the answer was lost", was_sent=True)
DEVICE = b'{"name":"a","created":"2026-11-23T00:00:00Z","labels":["wet","floor=2"]}'
FOUND = Answer(200, {"etag": '"1"'}, DEVICE)
DONE = Answer(200, {}, b'{"done":"all of it"}')


def problem(status: int, detail: str = "no", retry_after: str = "", **fields: Any) -> Answer:
    headers = {"content-type": "application/problem+json"} | ({"retry-after": retry_after} if retry_after else {})
    return Answer(status, headers, msgspec.json.encode({"title": "", "status": status, "detail": detail, **fields}))


def went(
    steps: Steps[Any], answers: Sequence[Answer | NoAnswer], patience: float = 60.0
) -> tuple[Any, list[Request], list[float]]:
    """Go through an operation; returns what came of it or the error, what was sent, and the waits, s."""
    moves, left = attempted(steps, patience), list(answers)
    sent: list[Request] = []
    waits: list[float] = []
    answer: Answer | NoAnswer | None = None
    try:
        while True:
            move = moves.send(answer)
            if isinstance(move, Wait):
                waits.append(move.seconds)
                answer = None
            else:
                sent.append(move)
                answer = left.pop(0)
    except StopIteration as done:
        assert not left
        return done.value, sent, waits
    except ClientError as error:
        return error, sent, waits


def test_what_may_be_repeated_is_sent_again_after_what_the_platform_asks_for() -> None:
    found, sent, waits = went(
        devices.device("a"), [problem(429, retry_after="7"), problem(503, retry_after="5"), LOST, FOUND]
    )
    assert found.name == "a"
    assert len(sent) == 4
    assert waits[:2] == [7.0, 5.0]
    assert 0 < waits[2] <= 1.0


def test_a_request_is_not_sent_for_ever() -> None:
    error, sent, _ = went(devices.device("a"), [problem(503)] * ATTEMPTS)
    assert isinstance(error, Unavailable)
    assert len(sent) == ATTEMPTS


def test_who_is_asked_to_wait_for_longer_than_it_has_patience_is_told_at_once() -> None:
    error, sent, waits = went(devices.device("a"), [problem(429, "too many", "100")], patience=30.0)
    assert isinstance(error, RateLimited)
    assert (error.retry_after, len(sent), waits) == (100.0, 1, [])


def test_a_deed_keeps_its_key_when_it_is_sent_again_and_waits_for_the_first_one_to_end() -> None:
    done, sent, _ = went(alarms.shelve("hot", 60), [LOST, problem(409, "has not ended"), DONE])
    assert done == "all of it"
    assert len({one.headers["idempotency-key"] for one in sent}) == 1
    _, other, _ = went(alarms.shelve("hot", 60), [DONE])
    assert other[0].headers != sent[0].headers


def test_what_would_be_done_twice_is_not_sent_again_but_where_nothing_was_done() -> None:
    for operation in (devices.create_device_token, devices.delete_device, devices.create_device):
        assert isinstance(went(operation("a"), [LOST])[0], Unavailable)
        assert isinstance(went(operation("a"), [problem(503)])[0], Unavailable)
    token, sent, _ = went(devices.create_device_token("a"), [AWAY, problem(429), Answer(201, {}, b'{"token":"t"}')])
    assert (token, len(sent)) == ("t", 3)


def test_a_conflict_is_none_that_passes() -> None:
    error, sent, _ = went(alarms.shelve("hot", 60), [problem(409)])
    assert isinstance(error, Conflict)
    assert len(sent) == 1


def test_a_problem_is_an_error_with_its_faults() -> None:
    faults = [{"field": "labels", "value": "wet", "rule": "should be a list"}]
    error, _, _ = went(devices.create_device("a"), [problem(422, "labels: should be a list", errors=faults)])
    assert isinstance(error, Invalid)
    assert error.faults == (Fault("labels", "should be a list", "wet"),)
    assert (error.field, error.status, str(error)) == ("labels", 422, "422: labels: should be a list")
    assert isinstance(went(devices.device("a"), [problem(404)])[0], NotFound)
    assert isinstance(went(devices.device("a"), [problem(500)])[0], ServerFailed)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}, b"<html>"),
        Answer(200, {}, b'{"name":1}'),
        Answer(404, {"content-type": "text/html"}, b"<html>"),
        Answer(302, {"location": "/login"}, b""),
        Answer(404, {"content-type": "application/problem+json"}, b"<html>"),
    ],
)
def test_what_is_no_answer_of_ours_is_said_to_be_none(answer: Answer) -> None:
    assert isinstance(went(devices.device("a"), [answer])[0], NotUnderstood)


def test_a_proxys_page_means_that_the_platform_is_away() -> None:
    assert isinstance(
        went(devices.delete_device("a"), [Answer(502, {"content-type": "text/html"}, b"<html>")])[0], Unavailable
    )


def test_labels_are_changed_anew_when_somebody_else_was_faster() -> None:
    other = Answer(200, {"etag": '"2"'}, DEVICE.replace(b"wet", b"dry"))
    found, sent, _ = went(devices.label_device("a", add=["floor=3"]), [FOUND, problem(412), other, FOUND])
    assert found.name == "a"
    puts = [one for one in sent if one.method == "PUT"]
    assert [(one.headers["if-match"], msgspec.json.decode(one.body or b"")["labels"]) for one in puts] == [
        ('"1"', ["floor=3", "wet"]),
        ('"2"', ["dry", "floor=3"]),
    ]


def test_labels_are_taken_away_by_word_key_or_both() -> None:
    for gone, kept in (("wet", ["floor=2"]), ("floor", ["wet"]), ("floor=2", ["wet"]), ("floor=3", ["floor=2", "wet"])):
        _, sent, _ = went(devices.label_device("a", remove=[gone]), [FOUND, FOUND])
        assert msgspec.json.decode(sent[1].body or b"")["labels"] == kept


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_is_never_another_address(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        next(devices.delete_device(name))


def test_retry_after_may_be_a_date() -> None:
    error, _, _ = went(devices.device("a"), [problem(503, retry_after="Wed, 21 Oct 2099 07:28:00 GMT")])
    assert error.retry_after > 1e9
    error, _, _ = went(devices.device("a"), [problem(503, retry_after="soon")] * ATTEMPTS)
    assert error.retry_after == 0
