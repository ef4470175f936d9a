"""How often somebody may try to log in, counted before a password is hashed, for all processes together.

Each attempt counts for its address and for its account. A good one clears the account's count, not the address's: else who
has an account may guess others' for ever. Somebody who guesses from many addresses locks an account, for a while, to
addresses that it is not known from; its owner, where they have logged in before, has a count of their own.

    | key                                | type   | content                                       |
    |------------------------------------|--------|-----------------------------------------------|
    | ``iso:{accounts}:tries:WHAT``      | string | attempts in the current span; expires with it |
    | ``iso:{accounts}:known:HASH``      | string | the account has logged in from the address    |
"""

from __future__ import annotations

import hashlib
import ipaddress

from isotherm.accounts.users import PREFIX
from isotherm.errors import Throttled
from isotherm.store.client import Client
from isotherm.store.reader import answering

SPAN_SECONDS = 15 * 60
PER_ACCOUNT = 10
"""Failures of one account from all unknown addresses together, and from each known one."""

PER_ADDRESS = 60
"""Attempts from one address, whatever the account: an office may share one."""

KNOWN_SECONDS = 30 * 86_400

_TRIES = PREFIX + "tries:"
_KNOWN = PREFIX + "known:"


class Throttle:
    """Counts attempts. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def attempt(self, name: str, address: str) -> None:
        """Count an attempt.

        Raises:
            Throttled: there were too many.
        """
        source = network(address)
        with answering():
            known = await self._redis.get(_KNOWN + _hash(name, source)) is not None
        account = _account(name, source if known else "")
        await self._count({_TRIES + f"address:{source}": PER_ADDRESS, account: PER_ACCOUNT})

    async def attempt_from(self, address: str) -> None:
        """Count an attempt that is of no account, such as a registration.

        Raises:
            Throttled: there were too many.
        """
        await self._count({_TRIES + f"address:{network(address)}": PER_ADDRESS})

    async def succeeded(self, name: str, address: str) -> None:
        """Clear the account's count, and know the address from now on."""
        source = network(address)
        with answering():
            async with self._redis.pipeline(transaction=True) as writing:
                writing.delete(_account(name, source), _account(name, ""))
                writing.set(_KNOWN + _hash(name, source), 1, ex=KNOWN_SECONDS)
                await writing.execute()

    async def _count(self, limits: dict[str, int]) -> None:
        with answering():
            async with self._redis.pipeline(transaction=True) as counting:
                for key in limits:
                    counting.incr(key)
                    counting.expire(key, SPAN_SECONDS, nx=True)
                    counting.ttl(key)
                answers = await counting.execute()
        for (count, _, left), limit in zip(zip(*[iter(answers)] * 3, strict=True), limits.values(), strict=True):
            if count > limit:
                minutes = max(1, -(-left // 60))
                raise Throttled(f"too many attempts; try again in {minutes} minute{'s' * (minutes > 1)}", left)


def network(address: str) -> str:
    """Return what is counted as one address: of IPv6 the /64, which is what one customer has.

    >>> network("2001:db8:1:2:3:4:5:6"), network("192.0.2.7"), network("::ffff:192.0.2.7")
    ('2001:db8:1:2::', '192.0.2.7', '192.0.2.7')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


def _account(name: str, source: str) -> str:
    return f"{_TRIES}account:{_hash(name, source)}"


def _hash(name: str, source: str) -> str:
    return hashlib.sha256(f"{name}\0{source}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
