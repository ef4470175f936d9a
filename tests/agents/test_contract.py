"""Every analytic that comes with Isotherm keeps the promises of `tests/contracts/agent.py`; none is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import loader
from isotherm.settings import Settings
from tests.contracts.agent import AgentContract, Case

ELSEWHERE = ["alarms", "notifications"]
"""What makes nothing without rules and channels: test_alarms and test_notifications_router hold them to a model."""

NAMES = ["anomaly", "anomaly_river", "dew_point", "energy", "expression", "heat_index", "presence"]

PARAMETERS: dict[str, dict[str, Any]] = {
    "anomaly": {"warm_up": 5, "half_life": 20},
    "anomaly_river": {"window": 20},
    "expression": {"expression": "power / (voltage * current)", "output": "power_factor"},
}


class TestBuiltIn(AgentContract):
    @pytest.fixture(scope="class", params=NAMES)
    @classmethod
    def case(cls, request: pytest.FixtureRequest) -> Case:
        return Case(loader.BUILT_IN / f"{request.param}.py", PARAMETERS.get(request.param, {}))


def test_these_are_all(tmp_path: Path) -> None:
    found = loader.find(Settings(data_dir=tmp_path))
    assert sorted(found) == sorted(NAMES + ELSEWHERE)
    assert {path.parent for path in found.values()} == {loader.BUILT_IN}
