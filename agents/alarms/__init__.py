"""Alarms that people can live with: rules with hysteresis and holds, and one alarm for one thing that is wrong.

Each rule watches each series, or device, that it is about: a *watch*. A watch has a state only while something is the
matter, or was lately; that is a row of the table of alarms (isotherm.alarms.row).

Time is that of the readings. Of a series a reading counts when it is newer than all that came in earlier packs, and not
older than those before it in its own; late and repeated ones neither raise nor clear. What has to be held (``hold``,
``clear_after``) is also held while nothing comes, by the clock.

What survives a restart: every alarm, what is being held, and of both the newest readings they looked at. Forgotten are which
reading was the newest of a series that was in order, the readings in the window of a rate, and the values of an expression
that was not true. A rate or an expression then waits until it has what it needs, and its alarm stays what it is meanwhile. A
late reading of a series that was in order may raise an alarm after a restart.

Silence counts from when the engine could have heard: after a restart, or when it was behind or not running for more than
30 s, from then on. Any reading ends it, a late one too; attributes do not. It is minded of registered devices only: of a
series once it was heard of, of a whole device from the start.
"""
