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

Imports msgspec, httpx2 for the clients, and of the rest of Isotherm only what needs no more than these; numpy and pyarrow
where they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

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
from isotherm.events import Event

if TYPE_CHECKING:
    from isotherm.client.asynchronous import AsyncClient, AsyncStream
    from isotherm.client.sync import Client, Stream

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

_CLIENTS = {"AsyncClient": "asynchronous", "AsyncStream": "asynchronous", "Client": "sync", "Stream": "sync"}


def __getattr__(name: str) -> Any:
    """Import a client when it is asked for: the models and the errors are used where there is no httpx2."""
    if name not in _CLIENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_CLIENTS[name]}"), name)
