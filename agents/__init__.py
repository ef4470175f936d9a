"""The Faust workers and the analytics that they run. What a file with an analytic needs is here."""

from agents.analytic import Analytic, Seconds
from agents.forms import formula, per_batch, per_reading
from agents.readings import Reading, Readings
from isotherm.events import Event

__all__ = ["Analytic", "Event", "Reading", "Readings", "Seconds", "formula", "per_batch", "per_reading"]
