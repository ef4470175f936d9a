"""Keeps the networks of virtual hosts on this machine apart, by two rules of its routing policy (ip-rule(8)).

Podman's own option, `isolate`, is not enough: netavark 1.4 (Debian 12) lets all isolated networks reach each other again as
soon as one of them is removed. The rules hold whatever becomes of the firewall's:

    8910: from all to POOL iif lo lookup main      what this machine itself sends to hosts passes
    8911: from POOL to POOL prohibit               what a host sends to another does not

They stay until the machine is restarted; the next host that is created, deleted or shown sets them again.
"""

from __future__ import annotations

import asyncio
import shutil
from ipaddress import IPv4Network

import msgspec

from isotherm.errors import SettingsError
from isotherm.hosts.backend import HostsAway, HostsUnusable

PREFERENCE = 8910
COMMAND_SECONDS = 10.0
HOST_PREFIX = 28
"""Length of the prefix of a host's own network."""

_THERE_ALREADY = "File exists"


def pool_of(text: str) -> IPv4Network:
    """Return the network that those of hosts are parts of.

    Raises:
        SettingsError: it is none, or too small.
    """
    try:
        pool = IPv4Network(text)
    except ValueError as error:
        raise SettingsError(f"ISOTHERM_HOSTS_NETWORK: {error}; expected an IPv4 network such as 10.90.0.0/16") from error
    if pool.prefixlen >= HOST_PREFIX:
        raise SettingsError(f"ISOTHERM_HOSTS_NETWORK is {text}, which has no room for hosts: expected such as 10.90.0.0/16")
    return pool


async def keep_apart(pool: IPv4Network) -> None:
    """See that no host of a pool reaches another one.

    Raises:
        HostsUnusable: there is no ``ip`` (iproute2).
        HostsAway: it fails.
    """
    there = {
        rule.get("priority") for rule in msgspec.json.decode(await _ip("-json", "rule", "show", "to", str(pool)) or b"[]")
    }
    for preference, rule in (
        (PREFERENCE, ("iif", "lo", "to", str(pool), "lookup", "main")),
        (PREFERENCE + 1, ("from", str(pool), "to", str(pool), "prohibit")),
    ):
        if preference not in there:
            await _ip("rule", "add", "preference", str(preference), *rule)


async def _ip(*arguments: str) -> bytes:
    program = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise HostsUnusable("there is no `ip` (iproute2), which keeps virtual hosts apart: install it")
    process = await asyncio.create_subprocess_exec(
        program,
        "-4",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    async with asyncio.timeout(COMMAND_SECONDS):
        out, err = await process.communicate()
    said = err.decode(errors="replace").strip()
    if process.returncode != 0 and _THERE_ALREADY not in said:
        raise HostsAway(f"`ip {' '.join(arguments)}` failed: {said}")
    return out
