"""Logging: one line an event, as text or as JSON, and a guard against a peer that fills the log."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime

import msgspec

from isotherm.settings import Settings


def configure(settings: Settings, process: str) -> None:
    """Send the log of this process to standard error, as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(process) if settings.log_json else _Text(process))
    handler.addFilter(_ThirdParties())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.getLogger("gmqtt").setLevel(logging.ERROR)  # warns of every lost connection several times
    logging.getLogger("mode.timers").setLevel(logging.ERROR)  # warns when a commit takes longer than its interval
    # Says that a group has not committed: the store's progress counts, and an analytic that makes nothing commits rarely.
    logging.getLogger("faust.transport.consumer").setLevel(logging.CRITICAL)
    for chatty in ("aiokafka", "amqtt", "transitions", "aiohttp.access", "coap-server", "coap", "faust", "mode", "bokeh"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))


class _Text(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {process}: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _utc(record).strftime("%H:%M:%S.%f")[:-3]


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _utc(record).isoformat(),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class _ThirdParties(logging.Filter):
    """Lets each complaint of a library through once a minute, with a count: a peer or a lost server can cause thousands."""

    _OURS = ("isotherm", "connectors", "agents", "dashboards", "simulator")

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle()

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide whether a record is logged."""
        if record.name.partition(".")[0] in self._OURS:
            return True
        held = self._throttle(f"{record.name}:{record.msg[:40]!s}" if isinstance(record.msg, str) else record.name)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more since the last line)", ()
        return held is not None


def _utc(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class Throttle:
    """Lets one message a key and minute through and counts the rest."""

    def __init__(self, seconds: float = 60.0, keys: int = 10_000) -> None:
        self._seconds = seconds
        self._keys = keys
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, key: str) -> int | None:
        """Return None to stay silent, or how many messages of ``key`` were held back since the last one."""
        now = time.monotonic()
        last, held = self._seen.get(key, (-self._seconds, 0))
        if now - last < self._seconds:
            self._seen[key] = (last, held + 1)
            return None
        if len(self._seen) >= self._keys:
            self._seen.clear()
        self._seen[key] = (now, 0)
        return held
