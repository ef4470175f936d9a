"""What a rule would have done over the last day, worked out by ``isotherm rules try`` in a process of its own.

An hour or a day of many series is seconds of work: here it would hold up every open page. A process can be ended when its
visitor has left or it takes too long, and has bounds of memory and priority of its own. The command line is also the
one place that may know both the rules' engine (`agents/`) and us.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

import msgspec

from isotherm.errors import SettingsError, Unavailable
from isotherm.process import die_with_parent
from isotherm.rules import Rule
from isotherm.settings import Settings

LAST = "24h"

AT_ONCE = 1
"""Previews of this process that are worked out at a time; others wait their turn."""

SECONDS = 30.0
MEMORY_BYTES = 2 * 2**30
"""Of address space, of which the libraries reserve some without using it."""

LISTED = 200
"""Alarms that are listed, the newest; all are counted."""

NICENESS = 10


class Previews:
    """Works out previews, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {
            **os.environ, **settings.environment(), "OPENBLAS_NUM_THREADS": "1", "ISOTHERM_LOG_LEVEL": "ERROR"
        }  # fmt: skip
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def preview(self, rule: Rule) -> dict[str, Any]:
        """Return what ``isotherm rules try --json`` says: count, alarms, series, readings, coarsest, skipped.

        Cancelling it ends the process.

        Raises:
            SettingsError: the rule would never look at anything; or it takes too much time or memory.
            Unavailable: the store does not answer.
        """
        async with self._turn:
            return await self._try(rule)

    async def _try(self, rule: Rule) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isotherm", "rules", "try", "-", "--last", LAST, "--limit", str(LISTED), "--json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            preexec_fn=_bounded,
        )
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate(rule.to_json())
        except TimeoutError:
            raise SettingsError(
                f"this takes longer than {SECONDS:.0f} s; name fewer devices, or try it at leisure: isotherm rules try"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            found: dict[str, Any] = msgspec.json.decode(out)
            return found
        said = err.decode(errors="replace").strip()
        if "does not answer" in said:
            raise Unavailable("the store does not answer")
        if "MemoryError" in said:
            raise SettingsError("this takes more memory than a preview may have; name fewer devices or metrics")
        # An error of ours is a line; a traceback's last one says the most.
        raise SettingsError(said.removeprefix("isotherm: ") if "Traceback" not in said else said.rpartition("\n")[2])


def _bounded() -> None:
    """In the child, before it becomes the command."""
    die_with_parent(signal.SIGKILL)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
