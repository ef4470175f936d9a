"""What can be asked for. No I/O.

Each operation is a generator of its requests (`isotherm.client.exchange`); both clients have it as a method of its name,
with its arguments. A new one is a function in a file here, and a line in `sync.py` and in `asynchronous.py`.
"""

from isotherm.client.operations import (
    alarms,
    commands,
    configuration,
    devices,
    firmware,
    hosts,
    rejects,
    rollouts,
    rules,
    series,
    system,
    users,
)

__all__ = [
    "alarms",
    "commands",
    "configuration",
    "devices",
    "firmware",
    "hosts",
    "rejects",
    "rollouts",
    "rules",
    "series",
    "system",
    "users",
]
