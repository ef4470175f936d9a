"""A Lua script that lies beside the modules, run by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from isotherm.store.client import Client


class Script:
    """Runs a script, and loads it where the server has not got it: a new one, or one that was restarted."""

    def __init__(self, redis: Client, *names: str, package: str = __package__) -> None:
        """Prepare; ``names`` are those of the files in ``package`` that are put together."""
        self._redis = redis
        self._text = "".join(resources.files(package).joinpath(name).read_text() for name in names)
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run it; all keys lie in one slot.

        Raises:
            RedisError: the server does not answer, or the script failed.
        """
        try:
            return await self._redis.evalsha(self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            await self._redis.script_load(self._text)
            return await self._redis.evalsha(self._sha, len(keys), *keys, *arguments)


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a hash that a script has read: to scripts HGETALL gives them one after the other."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
