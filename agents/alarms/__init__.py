"""Alarms that people can live with: rules with hysteresis and holds, and one alarm for one thing that is wrong.

Each rule watches each series, or device, that it is about: a *watch*. A watch has a state only while something is the
matter, or was lately; that is a row of the table of alarms (isotherm.alarms.row).

Time is that of the readings. Of a series a reading counts when it is newer than all that came in earlier packs, and not
older than those before it in its own; late and repeated ones neither raise nor clear. What has to be held (``hold``,
``clear_after``) is also held while nothing comes, by the clock.

A restart changes nothing of that: every alarm, what is being held, the newest reading of each series that a rule follows and
the window of each rate are rows of the state. The past of a series counts from when a rule first follows it.

Silence counts from when the engine could have heard: after a restart, or when it was behind or not running for more than
30 s, from then on. Any reading ends it, a late one too; attributes do not. It is minded of registered devices only: of a
series once it was heard of, of a whole device from the start.
"""
