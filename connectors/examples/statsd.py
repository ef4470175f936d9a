"""StatsD over UDP, as a worked example of a connector: ``isotherm connect connectors/examples/statsd.py``

    room-1.temperature:21.5|g          a gauge: what it says is the reading
    room-1.doors:1|c|@0.1              a counter: 10 are added to its count since the connector started
    room-1.answer:320|ms               a timing, ms

The device is the text before the first dot. StatsD has no answer and no token: what is refused goes to `rejects`, and the
sender is not told. Format: github.com/statsd/statsd, docs/metric_types.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE
from connectors.receipt import Receipt
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.logs import Throttle
from isotherm.rejects import Rejected

PORT = int(os.environ.get("STATSD_PORT", "8125"))
UNITS = {"ms": "ms", "g": "", "c": ""}

log = logging.getLogger(__name__)

_LINE = re.compile(rb"([A-Za-z0-9\-:_]+)\.([A-Za-z0-9\-:._/]+):([-+]?\d+(?:\.\d+)?)\|(g|c|ms)(?:\|@(0?\.\d*[1-9]\d*|1))?")


class StatsDecoder:
    """Datagrams in, readings and rejects out; remembers the counters. Does no I/O, so tests can call it."""

    def __init__(self) -> None:
        self._counters: defaultdict[str, float] = defaultdict(float)

    def __call__(self, datagram: bytes, now: int) -> Decoded:
        names, values, raws, units, rejects = [], [], [], {}, []
        for at, line in enumerate(datagram.split(b"\n"), 1):
            match = _LINE.fullmatch(line)
            if match is None:
                if line:
                    rejects.append(Rejected("malformed", "no StatsD line; expected device.metric:21.5|g", line, at=at))
                continue
            device, metric, value, kind = (part.decode() for part in match.groups()[:4])
            name, number = f"{device}/{metric}", float(value)
            if kind == "c":
                number = self._counters[name] = self._counters[name] + number / float(match[5] or 1)
            names.append(name)
            values.append(number)
            raws.append((at, line))
            units[name] = UNITS[kind]
        time = np.full(len(names), now, dtype=np.int64)
        return Decoded(names, time, np.array(values), raws.__getitem__, units, rejects=rejects)


class Datagrams(asyncio.DatagramProtocol):
    """What asyncio calls. UDP cannot be held up: what comes while Kafka is away for long is lost, and that is said."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._decode = StatsDecoder()
        self._throttle = Throttle()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Take in one datagram."""
        decoded = self._decode(data, now_us())
        peer = f"{address[0]}:{address[1]}"
        taken = self._site.intake.take(decoded, Receipt(), peer=peer, identity=ANYONE, form="statsd")
        if not taken and self._throttle("lost") is not None:
            log.warning("a datagram of %s is lost: Kafka is away", peer)


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where."""
    if site.settings.auth == "token":
        raise SettingsError("StatsD knows no tokens; it can be used with ISOTHERM_AUTH=open, on loopback, alone")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(site), (site.settings.host, PORT))
    try:
        yield f"statsd://{site.settings.host}:{PORT}"
    finally:
        transport.close()
