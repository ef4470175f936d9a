"""Every analytic that comes with Isotherm keeps the promises of `tests/contracts/agent.py`; none is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import loader
from agents.alarms.directory import Directory
from agents.engine import rows_after
from agents.notifications.router import Router
from isotherm.channels import Channel
from isotherm.errors import SettingsError
from isotherm.events import Event
from isotherm.limits import SECOND
from isotherm.registry import Device
from isotherm.rules import Rule
from isotherm.settings import Settings
from tests.contracts.agent import BASE, DEVICES, AgentContract, Case
from tests.support.notifications import NOWHERE

EVENTS = ["notifications"]
"""What reads events: `TestNotifications`."""

NAMES = ["alarms", "anomaly", "anomaly_river", "dew_point", "energy", "expression", "heat_index", "presence"]

PARAMETERS: dict[str, dict[str, Any]] = {
    "anomaly": {"warm_up": 5, "half_life": 20},
    "anomaly_river": {"window": 20},
    "expression": {"expression": "power / (voltage * current)", "output": "power_factor"},
}


RULES = (
    Rule(id="hot", kind="threshold", metric="t*", above=22.0, hysteresis=1.0, clear_after=5 * SECOND),
    Rule(id="held", kind="threshold", metric="power", below=19.0, hold=10 * SECOND),
    Rule(id="fast", kind="rate", metric="*", above=0.5, window=4 * SECOND),
    Rule(id="both", kind="expression", expression="temperature > 20 and power > 20", hold=2 * SECOND),
    Rule(id="silent", kind="silence", metric="power", silence=30 * SECOND),
)
PREPARE: dict[str, Callable[[Any], None]] = {
    "alarms": lambda engine: engine.refresh(Directory(RULES, {name: Device(name, 0) for name in DEVICES})),
}
ROWS = {"alarms": 4}  # the newest reading, a window, and two alarms

OWN = """
from agents import per_reading

@per_reading("*/temperature, */power", output="{metric}_f", any_order=True)
def fahrenheit(reading):
    '''A temperature in °F of one in °C: T · 9/5 + 32 (NIST SP 811, 2008).'''
    return reading.value * 1.8 + 32.0
"""


class TestBuiltIn(AgentContract):
    @pytest.fixture(scope="class", params=NAMES)
    @classmethod
    def case(cls, request: pytest.FixtureRequest) -> Case:
        name = request.param
        prepare = PREPARE.get(name, lambda _: None)
        return Case(loader.BUILT_IN / f"{name}.py", PARAMETERS.get(name, {}), prepare, ROWS.get(name, 1))


class TestInAnyOrder(AgentContract):
    """What a user's analytic without a state keeps that declares it."""

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        path = tmp_path_factory.mktemp("agents") / "fahrenheit.py"
        path.write_text(OWN)
        case = Case(path, rows=0)
        assert case.analytic.is_order_insensitive
        return case


EVENT = st.tuples(
    st.integers(0, 400), st.sampled_from(DEVICES), st.sampled_from(["raised", "cleared", "acknowledged"]), st.booleans()
)
CHANNELS = [
    Channel(id="all", to=NOWHERE, window=0),
    Channel(id="ops", to=NOWHERE, severity="major", window=60),
]


class TestNotifications:
    """The same promises of what reads events: what waits to be told is the same."""

    @settings(max_examples=100)
    @given(st.lists(EVENT, max_size=20), st.lists(st.integers(1, 6), min_size=20, max_size=20))
    def test_the_same_messages_wait_however_events_come_together_and_over_restarts(
        self, rows: list[tuple[int, str, str, bool]], together: list[int]
    ) -> None:
        events = self._events(rows)
        expected = self._due(events, [1] * len(events), restart=False)
        assert self._due(events, [1] * len(events), restart=False) == expected
        assert self._due(events, together, restart=False) == expected
        assert self._due(events, together, restart=True) == expected
        assert bool(expected) == any(event.kind != "alarm.acknowledged" for event in events)

    @staticmethod
    def _events(rows: list[tuple[int, str, str, bool]]) -> list[Event]:
        return [
            Event(
                kind=f"alarm.{kind}",
                device=device,
                time=BASE + after * SECOND,
                message=f"{device} is {kind}",
                severity="critical" if is_bad else "major",
                alarm=f"hot/{device}/t",
                since=BASE,
                rule="hot",
                source="alarms/0/1",
                number=number,
            )
            for number, (after, device, kind, is_bad) in enumerate(rows, start=1)
        ]

    @staticmethod
    def _due(events: list[Event], together: list[int], *, restart: bool) -> Any:
        router, kept, at = Router(), dict[str, bytes](), 0
        router.refresh(CHANNELS)
        for count in together:
            router.take(events[at : at + count], BASE + 500 * SECOND)
            kept = rows_after(kept, router.changes())
            at += count
            if restart:
                router = Router()
                router.refresh(CHANNELS)
                router.load(kept)
        due = sorted(router.due(BASE + 1000 * SECOND), key=lambda message: message.channel)
        return [(message.id, message.event, message.severity, message.counts) for message in due]

    def test_its_text_says_what_it_does_and_it_has_no_parameters(self) -> None:
        analytic = loader.load(loader.BUILT_IN / "notifications.py")
        assert len(analytic.text.split("\n")[0]) > 20
        with pytest.raises(SettingsError, match="nonsense"):
            analytic.parameters({"nonsense": 1})


def test_these_are_all(tmp_path: Path) -> None:
    found = loader.find(Settings(data_dir=tmp_path))
    assert sorted(found) == sorted(NAMES + EVENTS)
    assert {path.parent for path in found.values()} == {loader.BUILT_IN}
