"""Apprise: whatever the library has an address for, see https://appriseit.com.

It is synchronous: each send has a thread of its own, which cannot be ended. So while one hangs the channel's next attempt
    fails at once, and there are never more threads than channels. There is nothing by which a far end could know a delivery
    that comes again. The library says why something failed in its log alone: that is caught, by thread, and goes no
    further, for it may hold secrets.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

from agents.notifications.channels.sender import Refused, Unreached
from agents.notifications.message import Delivery
from agents.notifications.text import summary
from isotherm.channels import Apprise, Channel
from isotherm.events import Severity

if TYPE_CHECKING:
    from apprise import NotifyBase

_TYPES: dict[Severity, str] = {
    "critical": "failure",
    "major": "failure",
    "minor": "warning",
    "warning": "warning",
    "info": "info",
}


class AppriseSender:
    """Sends to one address."""

    def __init__(self, channel: Channel, to: Apprise) -> None:
        self._channel = channel
        self._to = to
        self._far_end: NotifyBase | None = None
        self._sending: threading.Thread | None = None

    async def send(self, delivery: Delivery) -> str:
        """Send a delivery, see `Sender`."""
        if self._sending is not None and self._sending.is_alive():
            raise Unreached("the attempt before has not ended yet")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def settle(text: str, error: Exception | None) -> None:
            if answer.done():  # it was cancelled: nobody waits any longer
                return
            if error is None:
                answer.set_result(text)
            else:
                answer.set_exception(error)

        def work() -> None:
            try:
                outcome: tuple[str, Exception | None] = (self._notify(delivery), None)
            except Exception as error:  # noqa: BLE001  (of a hundred plugins: it is told as this channel's)
                outcome = (
                    "",
                    error if isinstance(error, Refused | Unreached) else Unreached(f"{type(error).__name__}: {error}"),
                )
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, *outcome)

        self._sending = threading.Thread(target=work, name=f"apprise {self._channel.id}", daemon=True)
        self._sending.start()
        return await answer

    async def close(self) -> None:
        """There is nothing to end."""

    def _notify(self, delivery: Delivery) -> str:
        if self._far_end is None:
            self._far_end = far_end(self._to.url)
        with _Said() as said:
            told = summary(delivery.messages, self._channel.zone)
            severity = min(delivery.messages, key=lambda one: one.rank).severity
            taken = self._far_end.notify(
                body="\n".join(told.lines), title=told.title, notify_type=_TYPES[severity], body_format="text"
            )
        if not taken:
            raise Unreached("; ".join(said.lines) or "apprise could not send it, and does not say why")
        return "apprise has sent it"


def far_end(url: str) -> NotifyBase:
    """Return what apprise makes of an address; blocks.

    Raises:
        Refused: it knows no such service, or the address lacks something.
    """
    import apprise

    with _LOADING, _Said():
        made = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if made is None:
        raise Refused("apprise does not know this address, or it lacks something; see https://appriseit.com/services/")
    return made


_LOADING = threading.Lock()
"""Its plug-ins are loaded by whoever needs them first."""


class _Said(logging.Handler):
    """Gathers what apprise logs in this thread, for the length of a block."""

    _logger = logging.getLogger("apprise")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a record."""
        if record.thread == self._thread:
            self.lines.append(record.getMessage())

    def __enter__(self) -> _Said:
        self._logger.propagate = False
        logging.getLogger("urllib3").setLevel(logging.WARNING)  # below that it logs paths, which may be secrets
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        self._logger.removeHandler(self)
