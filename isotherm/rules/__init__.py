"""Rules: when an alarm is raised and when it is cleared, and where they are kept."""

from isotherm.rules.rule import Kind, Rule
from isotherm.rules.store import Rules

__all__ = ["Kind", "Rule", "Rules"]
