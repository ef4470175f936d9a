import doctest

import pytest

from isotherm import clock


def test_the_example_is_true() -> None:
    assert doctest.testmod(clock).failed == 0


@pytest.mark.parametrize(("text", "expected"), [("1min", 60_000_000), ("1.5s", 1_500_000), (" 7d ", 604_800_000_000)])
def test_a_duration_is_read(text: str, expected: int) -> None:
    assert clock.duration_us(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "0s", "-1h", "1w", "1 h", "0.0001ms"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        clock.duration_us(text)
