"""Notifications."""

from typing import Any

from pydantic import BaseModel

from agents.analytic import Analytic
from agents.engine import Engine
from agents.notifications.plan import NotificationPlan
from isotherm.errors import SettingsError


class Parameters(BaseModel, extra="forbid"):
    """None: the channels say it all."""


def build(name: str, parameters: Any) -> Engine:
    """Say that it reads no readings."""
    raise SettingsError("notifications reads events, not readings: try a channel with `isotherm notify test`")


notifications = Analytic(
    "notifications",
    "Tells people of alarms through the channels of `isotherm notify`: e-mail, webhooks, and whatever apprise knows.",
    Parameters,
    build,
    inputs=lambda _: [],
    plan=NotificationPlan,
)
