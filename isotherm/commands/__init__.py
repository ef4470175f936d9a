"""Commands: what people and programs ask devices to do, and what comes of it."""

from isotherm.commands.command import Command, State, new
from isotherm.commands.control import Control
from isotherm.commands.table import Table

__all__ = ["Command", "Control", "State", "Table", "new"]
