"""An analytic's state in one partition, as its process keeps it: what the store holds, and what is not committed yet."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from agents.engine import Changes
from agents.shard import until_available
from isotherm.store.analytic import AnalyticStore, Commit, Held, Outgoing
from isotherm.store.writer import Progress


class Keeper:
    """Loads and commits, one after the other, and knows when somebody else has."""

    def __init__(self, partition: int, store: AnalyticStore) -> None:
        self._partition = partition
        self._store = store
        self._rows: dict[str, bytes | None] = {}  # not committed yet; None is gone
        self.held = Held()
        self.progress: Progress | None = None
        """How far the state is; what is committed of it is ``held.progress``."""

    @property
    def key(self) -> str:
        """The key of the progress."""
        return self._store.key(self._partition)

    @property
    def has_news(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._rows) or self.progress != self.held.progress

    async def load(self) -> dict[str, bytes]:
        """Begin anew at what the store holds, and return the rows of the state."""
        self.held = await until_available(lambda: self._store.load(self._partition))
        self.progress = self.held.progress
        self._rows = {}
        rows, self.held.rows = self.held.rows, {}  # they are the engine's now
        return rows

    async def stored(self) -> Progress | None:
        """Return how far the store is, whoever has brought it there."""
        return await until_available(lambda: self._store.progress(self._partition))

    async def rows(self) -> dict[str, bytes]:
        """Return the rows of the state, with those that are not committed yet."""
        rows = (await until_available(lambda: self._store.load(self._partition))).rows
        for key, row in self._rows.items():
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row
        return rows

    def take(self, changes: Changes) -> None:
        """Remember what has changed until it is committed."""
        self._rows |= changes.rows
        self._rows |= dict.fromkeys(changes.gone)

    async def commit(
        self, outgoing: Sequence[Outgoing] = (), events: Sequence[bytes] = (), numbers: Mapping[str, int] | None = None
    ) -> bool:
        """Commit everything; returns whether nobody else did meanwhile. If somebody did, `load` anew."""
        rows, progress = self._rows, self.progress
        self._rows = {}
        commit = Commit(
            progress=progress,
            outbox=outgoing,
            next_event=self.held.next_event,
            rows={key: row for key, row in rows.items() if row is not None},
            gone=[key for key, row in rows.items() if row is None],
            numbers=numbers or {},
            events=events,
        )
        expected, version = self.held.version, secrets.token_hex(8)
        is_written = await until_available(
            lambda: self._store.commit(self._partition, commit, expected=expected, version=version)
        )
        if is_written:
            self.held.version, self.held.progress = version, progress
        return is_written
