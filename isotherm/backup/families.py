"""Which keys of the store are the registry, and which are not, because …

In a pattern ``#`` is the number of a partition, and ``*`` whatever is there, but something. What both lists have belongs to
the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from isotherm.alarms.row import ENGINE
from isotherm.store.layout import ROLLUPS

Type = Literal["string", "hash", "set", "zset", "stream"]

RESTORING = "iso:restoring"
"""Is there for as long as a restore is at work, and after one that did not end."""


@dataclass(frozen=True, slots=True)
class Family:
    """Keys of one kind.

    Attributes:
        pattern: What they are called.
        type: What they hold.
        counted: What people call what is in it, where they count that: fields of a hash, members of a zset, entries of a
            stream, or the keys themselves.
        has: A field without which a hash is none of these.
        is_large: It has megabytes: it is read by itself.
        is_version: It is a number that grows with each change of the others; whoever follows them looks at it.
    """

    pattern: str
    type: Type
    counted: str = ""
    has: str = ""
    is_large: bool = False
    is_version: bool = False


BACKED_UP = (
    Family("iso:{registry}:devices", "zset", "devices"),
    Family("iso:{registry}:device:*", "hash"),
    Family("iso:{registry}:children:*", "set"),
    Family("iso:{registry}:token:*", "string", "device tokens"),
    Family("iso:{registry}:version", "string", is_version=True),
    Family("iso:{registry}:rules", "hash", "rules"),
    Family("iso:{registry}:rules:version", "string", is_version=True),
    Family("iso:{registry}:channels", "hash", "channels"),
    Family("iso:{registry}:channels:version", "string", is_version=True),
    Family("iso:{registry}:analytics", "hash", "analytics"),
    Family("iso:{accounts}:users", "zset", "users"),
    Family("iso:{accounts}:user:*", "hash"),
    Family("iso:{accounts}:admins", "set"),
    Family("iso:{accounts}:api-token:*", "hash", "API tokens", has="id"),
    Family("iso:{accounts}:api-tokens:*", "set"),
    Family("iso:{accounts}:audit", "stream", "audit entries"),
    Family("iso:{accounts}:refused", "stream", "audit entries"),
    Family("iso:{firmware}:images", "hash", "firmware images"),
    Family("iso:{firmware}:bytes:*", "string", is_large=True),
    Family("iso:{firmware}:keys", "hash", "firmware keys"),
    Family("iso:{rollouts}:all", "zset", "rollouts"),
    Family("iso:{rollouts}:open", "set"),
    Family("iso:{rollouts}:continuous", "set"),
    Family("iso:{rollouts}:rollout:*", "hash"),
    Family("iso:{#}:configuration", "zset"),
    Family("iso:{#}:configuration:device:*", "hash", "configurations"),
    Family("iso:{#}:configuration:desired:*", "hash"),
    Family("iso:{#}:configuration:reported:*", "hash"),
    Family("iso:{#}:configuration:rollout:*", "zset"),
    Family("iso:{#}:configuration:held:*", "string"),
    Family("iso:{#}:configuration:before:*", "hash"),
    Family(f"iso:{{#}}:agent:{ENGINE}:state", "hash", "rows of alarms"),
    Family("iso:{#}:alarms:marks", "hash"),
    Family("iso:{#}:attributes", "hash", "attributes"),
)
"""The registry. Hash tags stand together: what has the same one is restored in few steps."""

BEGUN_ANEW = (f"iso:{{#}}:agent:{ENGINE}", f"iso:{{#}}:agent:{ENGINE}:numbers")
"""Progress of what is restored: removed then, so that the engine reads its rows anew, and goes on at the log's end."""

_SERIES = "series: isotherm export has their readings"
_LEDGER = "the ledger counts readings, which are not here"
_LOG = "how far a log is taken in; without it a store is filled again from the log"
_MOMENT = "how it is at the moment"
_ACCESS = "it ends with the store: people log in again, and a link that was used since would work again"

NOT_BACKED_UP: Mapping[str, str] = {
    "iso:{#}:raw:*": _SERIES,
    **{f"iso:{{#}}:{tier.name}:*": _SERIES for tier in ROLLUPS},
    "iso:{#}:sealed:*": _SERIES,
    "iso:{#}:open": _SERIES,
    "iso:{#}:sweeping": _SERIES,
    "iso:{#}:late": _SERIES,
    "iso:{#}:latest": _SERIES,
    "iso:{#}:units": _SERIES,
    "iso:{#}:windows": _SERIES,
    "iso:{#}:stored": _LEDGER,
    "iso:{#}:duplicates": _LEDGER,
    "iso:connector:*": _LEDGER,
    "iso:{#}:progress:*": _LOG,
    "iso:replayed:*": _LOG,
    "iso:{#}:agent:*": "what analytics have made of readings so far; they begin anew",
    "iso:{#}:events": "the topic events has them",
    "iso:{#}:commands": "the topics commands and replies have them",
    "iso:{#}:commands:*": "the topics commands and replies have them",
    "iso:{registry}:running": _MOMENT,
    "iso:{registry}:hosts": _MOMENT,
    "iso:{rollouts}:looked": _MOMENT,
    "iso:{rollouts}:looking": _MOMENT,
    "iso:{accounts}:session:*": _ACCESS,
    "iso:{accounts}:sessions:*": _ACCESS,
    "iso:{accounts}:link:*": _ACCESS,
    "iso:{accounts}:oidc:*": _ACCESS,
    "iso:{accounts}:pages": _ACCESS,
    "iso:{accounts}:tries:*": "attempts to log in, of a quarter of an hour",
    "iso:{accounts}:known:*": "which addresses people have logged in from: they do again",
    "iso:{api}:once:*": "answers to requests, of a day",
    "iso:{api}:rate:*": _MOMENT,
    "iso:partitions": "the file says in its head how many there are",
    RESTORING: "it is there while a restore is at work",
}


def family_of(key: bytes) -> Family | None:
    """Return the family of the registry that a key belongs to, or None."""
    for family in BACKED_UP:
        if _matches(family.pattern, key):
            return family
    return None


def reason_of(key: bytes) -> str | None:
    """Return why a key is no part of the registry, or None when nothing is known of such keys."""
    for pattern, reason in NOT_BACKED_UP.items():
        if _matches(pattern, key):
            return reason
    return None


def single_keys(partitions: int) -> Iterator[str]:
    """Yield the keys of the partitions that there is one of in each."""
    for family in BACKED_UP:
        if "#" in family.pattern and "*" not in family.pattern:
            yield from in_partitions(family.pattern, partitions)


def in_partitions(pattern: str, partitions: int) -> Iterator[str]:
    """Yield the key of each partition."""
    for partition in range(partitions):
        yield pattern.replace("#", str(partition))


LOOKED_FOR = ("iso:{[a-z]*", "iso:{[0-9]*}:configuration:*")
"""What the others are looked for by, as the store understands it."""


def _matches(pattern: str, key: bytes) -> bool:
    return _expression(pattern).fullmatch(key) is not None


@cache
def _expression(pattern: str) -> re.Pattern[bytes]:
    text = re.escape(pattern).replace(r"\#", "#").replace("#", "[0-9]+").replace(r"\*", ".+")
    return re.compile(text.encode(), re.DOTALL)
