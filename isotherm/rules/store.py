"""The rules in the store.

| key                              | type   | content                             |
|----------------------------------|--------|-------------------------------------|
| ``iso:{registry}:rules``         | hash   | id → the rule, JSON                 |
| ``iso:{registry}:rules:version`` | string | how often any of them was changed   |
"""

from __future__ import annotations

import msgspec

from isotherm.errors import Changed, SettingsError
from isotherm.rules.rule import Rule
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script

MAX_RULES = 10_000

_RULES = "iso:{registry}:rules"
VERSION = "iso:{registry}:rules:version"


class Rules:
    """Reads and changes the rules. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._script = Script(redis, "replace.lua", package=__package__)

    async def version(self) -> int:
        """Return a number that grows with every change of a rule."""
        with answering():
            return int(await self._redis.get(VERSION) or 0)

    async def all(self) -> list[Rule]:
        """Return every rule, ascending by id.

        Raises:
            SettingsError: what is kept under an id is no rule of this version.
        """
        with answering():
            kept = await self._redis.hgetall(_RULES)
        return [_read(id, kept[id]) for id in sorted(kept)]

    async def usable(self) -> tuple[list[Rule], list[str]]:
        """Return the rules that can be evaluated, ascending by id, and what is wrong with the others."""
        with answering():
            kept = await self._redis.hgetall(_RULES)
        rules, errors = [], []
        for id in sorted(kept):
            try:
                rules.append(_read(id, kept[id]))
            except SettingsError as error:
                errors.append(str(error))
        return rules, errors

    async def find(self, id: str) -> Rule | None:
        """Return a rule, or None when there is none.

        Raises:
            SettingsError: what is kept is no rule of this version.
        """
        with answering():
            kept = await self._redis.hget(_RULES, id)
        return None if kept is None else _read(id.encode(), kept)

    async def is_kept(self, id: str) -> bool:
        """Tell whether there is a rule, usable or not."""
        with answering():
            return await self._redis.hget(_RULES, id) is not None

    async def get(self, id: str) -> Rule:
        """Return a rule.

        Raises:
            SettingsError: there is none, or what is kept is no rule of this version.
        """
        rule = await self.find(id)
        if rule is None:
            raise SettingsError(f"there is no rule {id!r}; see: isotherm rules list")
        return rule

    async def add(self, rule: Rule) -> None:
        """Keep a new rule.

        Raises:
            SettingsError: there is one with its id, or there are MAX_RULES.
        """
        with answering():
            async with self._redis.pipeline(transaction=True) as change:
                change.hlen(_RULES)
                change.hexists(_RULES, rule.id)
                count, exists = await change.execute()
        if not exists and count >= MAX_RULES:
            raise SettingsError(
                f"there are {count:,} rules, expected at most {MAX_RULES:,}; one with a pattern may do for many"
            )
        with answering():
            async with self._redis.pipeline(transaction=True) as change:
                change.hsetnx(_RULES, rule.id, rule.to_json())
                change.incr(VERSION)
                added, _ = await change.execute()
        if not added:
            raise Changed(f"there is a rule {rule.id!r} already; choose another id, or replace it: --replace")

    async def replace(self, rule: Rule, *, seen: Rule | None = None) -> None:
        """Keep a rule in the place of the one with its id.

        Args:
            rule: As it is to be.
            seen: As it has to be for that; None whatever it is.

        Raises:
            SettingsError: there is none.
            Changed: it is not as it was seen, or was changed at this moment.
        """
        await self._change(rule.id, seen, rule.to_json())

    async def _change(self, id: str, seen: Rule | None, wanted: bytes) -> None:
        with answering():
            found = await self._redis.hget(_RULES, id)
        if found is None and seen is None:
            raise SettingsError(f"there is no rule {id!r}; see: isotherm rules list")
        if found is None or (seen is not None and _read(id.encode(), found) != seen):
            raise Changed(f"rule {id} was changed meanwhile")
        with answering():
            if not await self._script([_RULES, VERSION], [id, found, wanted]):
                raise Changed(f"rule {id} was changed meanwhile")

    async def enable(self, id: str, enabled: bool = True) -> None:
        """Have a rule evaluated, or not.

        Raises:
            SettingsError: there is none.
        """
        rule = await self.get(id)
        if rule.enabled != enabled:
            await self.replace(msgspec.structs.replace(rule, enabled=enabled), seen=rule)

    async def remove(self, id: str, *, seen: Rule | None = None) -> None:
        """Forget a rule; its alarms are cleared.

        Args:
            id: Of it.
            seen: As it has to be for that; None whatever it is, also when it cannot be used.

        Raises:
            SettingsError: there is none.
            Changed: it is not as it was seen, or was changed at this moment.
        """
        await self._change(id, seen, b"")


def _read(id: bytes, kept: bytes) -> Rule:
    try:
        return Rule.from_json(kept)
    except SettingsError as error:
        raise SettingsError(f"the store's rule {id.decode()!r} cannot be used, remove or replace it: {error}") from error
