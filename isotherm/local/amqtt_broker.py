"""The embedded MQTT broker, amqtt, as a process: ``python -m isotherm.local.amqtt_broker HOST PORT``.

It speaks MQTT 3.1.1 and keeps its sessions in memory; mosquitto is used instead where it is installed.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from amqtt.broker import Broker

from isotherm.process import stop_signal


async def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = stop_signal()
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}", "max_connections": 10_000}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
