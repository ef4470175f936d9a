"""A new analytic and its test, as text."""

from __future__ import annotations

ANALYTIC = '''"""What {name} is, in a line."""

from agents import Reading, per_reading


@per_reading("*/temperature", output="{{metric}}_{name}", unit="Cel")
def {name}(reading: Reading, state: dict, *, weight: float = 0.1):
    """A running mean of each temperature: the newest reading counts with this weight."""
    mean = state.get("mean", reading.value)
    state["mean"] = mean + weight * (reading.value - mean)
    yield state["mean"]
    if abs(reading.value - mean) > 10:
        yield reading.event(f"{{reading.value:.1f}} is far from the usual {{mean:.1f}}", "warning")
'''

TEST = '''"""Run me: pytest {path}"""

from pathlib import Path

from agents.bench import derived

FILE = Path(__file__).with_name("{name}.py")


def test_a_constant_temperature_is_its_own_mean():
    made = derived(FILE, {{"room-1/temperature": [20.0, 20.0, 20.0]}})
    assert made["room-1/temperature_{name}"] == [20.0, 20.0, 20.0]


def test_a_new_reading_counts_with_its_weight():
    made = derived(FILE, {{"room-1/temperature": [20.0, 30.0]}}, weight=0.5)
    assert made["room-1/temperature_{name}"] == [20.0, 25.0]
'''
