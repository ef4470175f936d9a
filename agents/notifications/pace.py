"""What of a channel's messages leaves now, and together with which: a pure function.

A first message leaves at once. Those that come within the window after it are gathered, and leave at its end: one by one
when they are few, else as a digest; that opens the next window. What quiet hours have held leaves as one digest when they
are over.

Half of an hour's limit may leave like this. From then on only digests do, spaced so that the other half lasts for an hour:
so whatever comes, also the worst after much that is not so bad, it is told within a bounded time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agents.notifications.message import Message
from isotherm.channels import Channel
from isotherm.limits import HOUR, SECOND


def groups(channel: Channel, messages: Sequence[Message], left: Collection[int], now: int) -> list[list[Message]]:
    """Decide what leaves now.

    Args:
        channel: Its window and limits.
        messages: All that are due and await their turn, in their order.
        left: When deliveries left for this channel, µs, at least those of the last hour.
        now: µs since the epoch UTC.

    Returns:
        The messages of each delivery, in the order in which they are to leave; what is in none waits on.
    """
    if not messages:
        return []
    used = sum(now - HOUR < time for time in left)
    freely = channel.per_hour // 2
    last = max(left, default=None)
    if used >= freely:
        gap = max(HOUR // (channel.per_hour - freely), channel.window * SECOND)
        return [list(messages)] if last is None or now >= last + gap else []
    held = [one for one in messages if one.held]
    fresh = [one for one in messages if not one.held]
    found = [held] if held else []
    if last is None or now >= last + channel.window * SECOND:
        found += _fresh(channel, fresh, last, room=freely - used - len(found))
    return found


def _fresh(channel: Channel, messages: list[Message], last: int | None, *, room: int) -> list[list[Message]]:
    """Decide about messages that no window holds back: those that the last one has gathered, or a first one."""
    gathered = last is not None and any(one.at < last + channel.window * SECOND for one in messages)
    leaving = messages if gathered or not channel.window else messages[:1]
    if leaving and len(leaving) > min(channel.digest_above, room):
        return [leaving]
    return [[one] for one in leaving]
