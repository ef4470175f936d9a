"""Alarms: the table of what is wrong, and what people do about it."""

from isotherm.alarms.row import AlarmRow, alarm_key, is_alarm_key
from isotherm.alarms.table import Alarm, Alarms

__all__ = ["Alarm", "AlarmRow", "Alarms", "alarm_key", "is_alarm_key"]
