"""What the open sessions of all pages have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import panel as pn
from panel.io.document import unlocked
from panel.io.state import set_curdoc
from prometheus_client import Gauge

from dashboards.feed import Feed
from dashboards.sessions import is_behind

MOST_UNSENT = 4
"""Messages on their way to a browser before it is told less."""

_open: WeakSet[Session] = WeakSet()
Gauge("isotherm_web_sessions", "Sessions in memory.").set_function(lambda: len(_open))


class Session:
    """One open page of one browser, from its first request to the end of its websocket."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._document = pn.state.curdoc
        self._document.on_session_destroyed(self._destroyed)
        _open.add(self)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let the block change the models of this session; the changes travel in one message."""
        with set_curdoc(self._document), unlocked():
            yield

    @contextmanager
    def rebuilding(self) -> Iterator[None]:
        """Let the block change which models there are: Bokeh walks all of them once at the end, not at each change."""
        with self.drawing(), self._document.models.freeze():
            yield

    def is_behind(self) -> bool:
        """Tell whether the browser has yet to take what it was sent."""
        session = self._document.session_context.session
        return session is not None and is_behind(session, MOST_UNSENT)

    def end(self) -> None:
        """Let go of everything outside the session."""
        self._feed.release(self)

    # Bokeh insists on this signature to the letter.
    def _destroyed(self, session_context: Any) -> None:
        self.end()


def argument(name: str) -> str:
    """Return an argument of the page's address, or an empty text."""
    values = pn.state.session_args.get(name) or [b""]
    return str(values[0].decode(errors="replace"))


def arguments(name: str) -> list[str]:
    """Return all values that the page's address has of an argument."""
    return [value.decode(errors="replace") for value in pn.state.session_args.get(name) or []]
