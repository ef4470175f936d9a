"""Those who watch one thing, told of its changes: each as fast as its browser takes them.

A session whose browser has yet to take what it was sent is told nothing more, and when it has taken it, how everything is
then. So a slow one gets a coarser stream, and nothing piles up for it here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

log = logging.getLogger(__name__)


class Listener(Protocol):
    """A session, as one who speaks to it sees it."""

    def is_behind(self) -> bool:
        """Tell whether the browser has yet to take what it was sent."""


_L = TypeVar("_L", bound=Listener)
_T = TypeVar("_T")


class Audience(Generic[_L]):
    """Listeners are held weakly, so a session that is forgotten is no leak."""

    def __init__(self) -> None:
        self._all: WeakSet[_L] = WeakSet()
        self._behind: WeakSet[_L] = WeakSet()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[_L]:
        return iter(self._all)

    def add(self, listener: _L) -> None:
        """Tell it changes from now on."""
        self._all.add(listener)

    def discard(self, listener: object) -> None:
        """Tell it nothing more."""
        self._all.discard(listener)  # type: ignore[arg-type]
        self._behind.discard(listener)  # type: ignore[arg-type]

    @property
    def is_behind(self) -> bool:
        """Whether somebody has missed something: `catch_up` is due."""
        return len(self._behind) > 0

    def tell(self, change: Callable[[_L], None]) -> None:
        """Tell a change to those who can take it."""
        able = []
        for listener in list(self._all):
            if listener in self._behind:
                continue
            if listener.is_behind():
                self._behind.add(listener)
            else:
                able.append(listener)
        tell(able, change)

    def catch_up(self, everything: Callable[[_L], None]) -> None:
        """Tell how everything is to those who have missed something and can take it again."""
        able = [listener for listener in self._behind if not listener.is_behind()]
        self._behind -= set(able)
        tell(able, everything)


def tell(listeners: Iterable[_T], what: Callable[[_T], None]) -> None:
    """Tell each; one session that fails does not keep the others from their news."""
    for listener in listeners:
        try:
            what(listener)
        except Exception:
            log.exception("a session could not show a change")
