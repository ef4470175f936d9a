"""A client of the REST API, for programs: ``Client`` and ``AsyncClient``.

    with Client("https://iot.example", "iso_…") as isotherm:
        for device in isotherm.devices(label="floor=3"):
            print(device.name)

errors.py      what may go wrong
model.py       what the answers hold
exchange.py    a request, its answer, when to send it again: no I/O
operations/    what can be asked for, each once, for both clients: no I/O
following.py   a stream of readings over any number of connections: no I/O
wire.py       requests and answers as httpx2 has them: no I/O
sync.py, asynchronous.py   the clients, which send and wait

Imports httpx2 and msgspec, and of the rest of Isotherm only what needs no more than these; numpy and pyarrow where they
are asked for.
"""

from msgspec.structs import replace

from isotherm.client.asynchronous import AsyncClient, AsyncStream
from isotherm.client.errors import (
    ClientError,
    Conflict,
    Fault,
    Forbidden,
    Invalid,
    NotFound,
    NotUnderstood,
    PreconditionFailed,
    RateLimited,
    Refused,
    ServerFailed,
    Unauthenticated,
    Unavailable,
)
from isotherm.client.model import (
    Alarm,
    Analytic,
    Attribute,
    Command,
    Configuration,
    Device,
    Host,
    HostKeys,
    Image,
    Key,
    Latest,
    Ledger,
    Line,
    Mark,
    Outcome,
    Presence,
    Progress,
    Reading,
    Reject,
    Rollout,
    Row,
    Rows,
    Rule,
    Targets,
    Token,
    User,
)
from isotherm.client.sync import Client, Stream
from isotherm.events import Event

__all__ = [
    "Alarm",
    "Analytic",
    "AsyncClient",
    "AsyncStream",
    "Attribute",
    "Client",
    "ClientError",
    "Command",
    "Configuration",
    "Conflict",
    "Device",
    "Event",
    "Fault",
    "Forbidden",
    "Host",
    "HostKeys",
    "Image",
    "Invalid",
    "Key",
    "Latest",
    "Ledger",
    "Line",
    "Mark",
    "NotFound",
    "NotUnderstood",
    "Outcome",
    "PreconditionFailed",
    "Presence",
    "Progress",
    "RateLimited",
    "Reading",
    "Refused",
    "Reject",
    "Rollout",
    "Row",
    "Rows",
    "Rule",
    "ServerFailed",
    "Stream",
    "Targets",
    "Token",
    "Unauthenticated",
    "Unavailable",
    "User",
    "replace",
]
