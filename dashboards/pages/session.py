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
