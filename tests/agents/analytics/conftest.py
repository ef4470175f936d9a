"""Engines of the analytics that come with Isotherm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents import loader
from agents.engine import Engine

Build = Callable[..., Engine]


@pytest.fixture
def built(request: pytest.FixtureRequest) -> Build:
    """Builds an engine of the analytic that the test module is named after, with parameters."""
    analytic = loader.load(loader.BUILT_IN / f"{request.module.__name__.rpartition('.test_')[2]}.py")

    def build(**parameters: Any) -> Engine:
        return analytic.build(analytic.name, analytic.parameters(parameters))

    return build
