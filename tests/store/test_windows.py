"""Windows of sequence numbers: a repetition is known, and nothing else is taken for one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotherm.pack import NO_SEQ, STAMPED, Pack
from isotherm.store import windows
from isotherm.store.windows import MAX_RUNS, REPEAT_US, Sieve, Window


@dataclass
class Naive:
    """The same with plain sets."""

    numbers: set[int] = field(default_factory=set)
    newest: int = -(2**63)
    before: set[int] = field(default_factory=set)
    newest_before: int = -(2**63)

    def admit(self, number: int, time: int, is_stamped: bool) -> bool:
        if number in self.before and time <= self.newest_before:
            return False
        if number in self.numbers:
            if time <= self.newest + (REPEAT_US if is_stamped else 0):
                return False
            if number != max(self.numbers):
                self.before, self.newest_before, self.numbers = self.numbers, self.newest, set()
        self.numbers.add(number)
        self.newest = max(self.newest, time)
        return True


READINGS = st.lists(
    st.tuples(st.integers(0, 40), st.one_of(st.integers(0, 60), st.integers(0, 4 * REPEAT_US)), st.booleans()), max_size=60
)


@given(READINGS)
def test_a_window_knows_what_a_set_would_know(readings: list[tuple[int, int, bool]]) -> None:
    window, naive = Window(), Naive()
    for reading in readings:
        assert window.admit(*reading) == naive.admit(*reading)
        window = Window(window.to_bytes())


@given(READINGS, st.lists(st.integers(1, 30), min_size=1), st.booleans(), st.sampled_from([0, windows.FEW]))
def test_a_sieve_knows_what_a_window_knows_however_readings_are_packed(
    readings: list[tuple[int, int, bool]], sizes: list[int], counting: bool, few: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "FEW", few)
        compare(readings, sizes, counting)


def compare(readings: list[tuple[int, int, bool]], sizes: list[int], counting: bool) -> None:
    if counting:  # as a device does, so that whole runs go on
        readings = [(at, at, stamped) for at, (_, _, stamped) in enumerate(readings)] + readings
    expected = [Naive() for _ in range(2)]
    held: dict[str, Window] = {}
    at = 0
    while at < len(readings):
        some = readings[at : at + sizes[at % len(sizes)]]
        which = [(at + i) % 3 for i in range(len(some))]  # the third has no numbers
        sieve = Sieve(held)
        kept = sieve.sift(pack_of(some, which))
        held |= sieve.windows
        by_number = sorted(range(len(some)), key=lambda i: some[i][0])
        wanted = [i for i in by_number if which[i] == 2 or expected[which[i]].admit(*some[i])]
        assert kept.value.tolist() == sorted(map(float, wanted))
        at += len(some)


def pack_of(readings: list[tuple[int, int, bool]], which: list[int]) -> Pack:
    seq = [NO_SEQ if w == 2 else n | STAMPED * s for (n, _, s), w in zip(readings, which, strict=True)]
    return Pack(
        names=["d/a", "d/b", "d/c"],
        series=np.array(which, dtype=np.int32),
        time=np.array([time for _, time, _ in readings], dtype=np.int64),
        value=np.arange(len(readings), dtype=np.float64),
        connector="tcp/1",
        received_at=0,
        seq=np.array(seq, dtype=np.uint64),
    )


@pytest.mark.parametrize("step", [1, 10])
def test_a_device_that_counts_takes_one_run(step: int) -> None:
    window = Window()
    numbers = [7 + step * i for i in range(1000)]
    random.Random(1).shuffle(numbers)
    admitted = [window.admit(number, number, False) for number in sorted(numbers[:500]) + sorted(numbers[500:])]
    assert not all(window.admit(number, number, False) for number in numbers)
    assert sum(admitted) > 500
    whole = Window()
    for number in sorted(numbers):
        assert whole.admit(number, number, False)
    assert len(whole.to_bytes()) == 12 + 24


def test_a_window_forgets_the_lowest_numbers_first_and_takes_them_for_new() -> None:
    window = Window()
    numbers = [3 * i + i * i % 2 for i in range(4 * MAX_RUNS)]
    random.Random(2).shuffle(numbers)
    for number in numbers:
        window.admit(number, 0, False)
    assert len(window.to_bytes()) <= 12 + 24 * MAX_RUNS
    top = sorted(numbers)[-1]
    assert not window.admit(top, 0, False)
    assert window.admit(-0, 0, False)


def test_a_device_that_counts_anew_is_believed() -> None:
    window = Window()
    for number in range(1, 100):
        assert window.admit(number, number * 1000, False)
    for number in range(1, 100):
        assert window.admit(number, 200_000 + number * 1000, False)
        assert not window.admit(number, 200_000 + number * 1000, False)


def test_a_device_without_a_clock_that_counts_anew_is_believed_after_a_while() -> None:
    window = Window()
    assert all(window.admit(number, number, True) for number in range(100))
    assert not window.admit(5, 99 + REPEAT_US, True)
    assert window.admit(5, 100 + REPEAT_US, True)
    assert window.admit(6, 101 + REPEAT_US, True)
    assert not window.admit(6, 102 + REPEAT_US, True)


def test_samples_with_the_number_of_their_message_are_all_kept() -> None:
    window = Window()
    for message in range(10):
        assert all(window.admit(message, 10 * message + sample, False) for sample in range(3))
    assert not any(window.admit(9, 90 + sample, False) for sample in range(3))


def test_ten_thousand_readings_that_are_sent_again_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "FEW", 0)
    readings = [(number, number, False) for number in range(10_000)]
    sieve = Sieve({})
    assert len(sieve.sift(pack_of(readings, [0] * 10_000))) == 10_000
    assert len(sieve.sift(pack_of([*readings[5000:], (10000, 10000, False)], [0] * 5_001))) == 1


def test_what_is_sent_again_of_the_count_before_a_restart_is_known() -> None:
    window = Window()
    first = [(number, 1_000 + number) for number in range(1, 101)]
    anew = [(number, 2_000 + number) for number in range(1, 51)]
    for number, time in first + anew:
        assert window.admit(number, time, False)
        window = Window(window.to_bytes())
    assert not any(window.admit(number, time, False) for number, time in first + anew)
    assert all(window.admit(number, 3_000 + number, False) for number in range(51, 101))


def test_a_run_that_is_sent_again_of_the_count_before_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "FEW", 0)
    held: dict[str, Window] = {}
    first = [(number, 1_000 + number, False) for number in range(1, 101)]
    anew = [(number, 2_000 + number, False) for number in range(1, 51)]
    kept = []
    for readings in (first, anew, first[50:], first):
        sieve = Sieve(held)
        kept.append(len(sieve.sift(pack_of(readings, [0] * len(readings)))))
        held |= sieve.windows
    assert kept == [100, 50, 0, 0]


def test_shuffled_numbers_of_one_message_are_known_when_they_come_again() -> None:
    readings = [(number, number, False) for number in range(1_000)]
    random.Random(3).shuffle(readings)
    sieve = Sieve({})
    assert len(sieve.sift(pack_of(readings, [0] * 1_000))) == 1_000
    assert len(sieve.sift(pack_of(readings, [0] * 1_000))) == 0
