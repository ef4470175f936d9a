"""Alarms."""

from typing import Any

from pydantic import BaseModel

from agents.alarms.engine import AlarmEngine
from agents.alarms.world import RulesAndDevices
from agents.analytic import Analytic
from agents.engine import Engine


class Parameters(BaseModel, extra="forbid"):
    """None: the rules say it all."""


def build(name: str, parameters: Any) -> Engine:
    """Make an engine."""
    return AlarmEngine()


alarms = Analytic(
    "alarms",
    "Raises and clears alarms by the rules of `isotherm rules`: thresholds, rates of change, silence, expressions.\n\n"
    "What counts when, and what survives a restart, is told in agents/alarms; states as in ISA-18.2-2016.",
    Parameters,
    build,
    inputs=lambda _: ["*"],
    world=RulesAndDevices,
)
