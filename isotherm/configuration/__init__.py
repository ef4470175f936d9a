"""Desired and reported configuration of devices, and rollouts, which bring a change to many of them.

configuration.py   one device's: what it should have, what it has, and how far that is
table.py           where they are kept, with the scripts that change them; connectors give what is due and note reports
rollout.py         a change for many devices, in waves
choosing.py        which devices it is for
rollouts.py        how it goes on: the next wave, a halt, again, and back
newcomers.py       who comes to a continuous one
"""

from isotherm.configuration.configuration import Configuration, State
from isotherm.configuration.newcomers import Newcomers
from isotherm.configuration.rollout import Progress, Rollout
from isotherm.configuration.rollouts import Rollouts
from isotherm.configuration.table import Configurations

__all__ = ["Configuration", "Configurations", "Newcomers", "Progress", "Rollout", "Rollouts", "State"]
