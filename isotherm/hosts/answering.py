"""Whether sshd of a host answers."""

from __future__ import annotations

import asyncio

from isotherm.hosts.host import SSH_PORT

PROBE_SECONDS = 1.0
POLL_SECONDS = 0.2
_BANNER = b"SSH-2.0-"


async def answers(address: str, seconds: float = PROBE_SECONDS) -> bool:
    """Tell whether an SSH server (RFC 4253 §4.2) greets at an address."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(address, SSH_PORT)
            try:
                return (await reader.readexactly(len(_BANNER))) == _BANNER
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
