"""When quiet hours are, by the clock on the wall, also in the nights in which it is set."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from agents.notifications.message import Message
from isotherm.channels import Channel
from isotherm.events import SEVERITIES
from isotherm.limits import SECOND


def quiet_until(channel: Channel, now: int) -> int | None:
    """Return when the quiet hours end that it is now in, µs; None when it is in none.

    They begin when the clock shows their start or later for the first time, and end when after that it shows their end or
    later
    for the first time: an end in the hour that a night in autumn has twice is the first one, and one in the hour that a
        night in spring lacks is the moment at which the clock jumps.

    Args:
        channel: With or without quiet hours.
        now: µs since the epoch UTC.
    """
    if channel.quiet is None:
        return None
    zone = ZoneInfo(channel.zone)
    start, end = time.fromisoformat(channel.quiet.start), time.fromisoformat(channel.quiet.end)
    today = datetime.fromtimestamp(now / SECOND, zone).date()
    for day in (today - timedelta(days=1), today):
        ends = _shows(zone, day if start < end else day + timedelta(days=1), end)
        if _shows(zone, day, start) <= now < ends:
            return ends
    return None


def gets_through(channel: Channel, message: Message) -> bool:
    """Tell whether a message is so bad that it is told in quiet hours, too."""
    return channel.quiet is None or message.rank <= SEVERITIES.index(channel.quiet.through)


def _shows(zone: ZoneInfo, day: date, at: time) -> int:
    """Return when a clock shows a time of a day or later for the first time that day, µs."""
    early, late = (datetime.combine(day, at.replace(fold=fold), zone).astimezone(UTC) for fold in (0, 1))
    if early <= late:  # the same but in an hour that comes twice
        return _us(early)
    # In an hour that there is not fold=1 reads it by the clock as it is set after the jump: an instant before the jump.
    before, after = int(late.timestamp()), int(early.timestamp())
    old = _offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(zone, middle) == old else (before, middle)
    return after * SECOND


def _offset(zone: ZoneInfo, second: int) -> timedelta | None:
    return datetime.fromtimestamp(second, zone).utcoffset()


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * SECOND
