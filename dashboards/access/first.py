"""The first admin, created where there is no account yet."""

from __future__ import annotations

import asyncio
import logging
import sys

from isotherm.accounts.accounts import FIRST_ADMIN, Accounts
from isotherm.errors import Unavailable

RETRY_SECONDS = 1.0

_TEXT = """
  There is no account yet. Log in as {name} with the password {password}
  and choose another. It is shown only now.
"""

log = logging.getLogger(__name__)


async def create(accounts: Accounts) -> None:
    """Create the first admin and print their password, as soon as the store answers; nothing where there are users."""
    while True:
        try:
            password = await accounts.create_first()
        except Unavailable as error:
            log.debug("whether there is an account cannot be told yet: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if password is not None:
            print(_TEXT.format(name=FIRST_ADMIN, password=password), file=sys.stderr, flush=True)
        return
