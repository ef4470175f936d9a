"""CoAP (RFC 7252): ``POST /readings`` or ``/devices/{id}/readings``, over UDP, TCP and TLS (RFC 8323).

    coap-client -m post -t 110 -e '[{"n":"room-1/temperature","u":"Cel","v":21.5}]' coap://127.0.0.1:7302/readings

2.04 Changed is sent when Kafka has the readings. Errors carry a diagnostic payload: 4.00 for a payload that holds a
reading that was refused (the good ones are kept), 4.01 without a valid token where one is needed (``?token=…`` or option
65002), 4.08 for blocks that do not fit together, 4.13 for a payload that is too large, 4.15 for another format, 4.29 for
a sender that has too many requests open, 5.03 when Kafka is away.

    numbers, options, message, frames     bytes in, values out
    exchanges, transmissions, blocks      what the protocol has to remember, within bounds
    sockets, datagrams, streams           what goes over UDP, and over TCP
    requests, resources, taking, plain    what is served, and how it goes to intake
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.coap.datagrams import DatagramEndpoint
from connectors.coap.resources import Resources
from connectors.coap.sockets import bound_socket
from connectors.coap.streams import Streams
from connectors.connections import served
from connectors.site import Site

CLOSE_SECONDS = 5.0
"""How long a stop waits for Kafka."""


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where. At its end, what was received is answered."""
    settings = site.settings
    resources = Resources(site)
    streams = Streams(resources, settings)
    endpoint = DatagramEndpoint(resources, bound_socket(settings.host, settings.coap_port, reuse_port=settings.reuse_port))
    sweeping = [
        asyncio.create_task(resources.sweep(), name="coap-sweep"),
        asyncio.create_task(streams.sweep(), name="coap-tcp-sweep"),
    ]
    plain, secure = ("coap+tcp", settings.coap_tcp_port), ("coaps+tcp", settings.coap_tls_port)
    try:
        async with served(settings, streams.connection, plain=plain, secure=secure, alpn="coap") as where:
            endpoint.start()
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            yield f"coap://{host}:{endpoint.port} and {where}"
            endpoint.stop_reading()
            streams.stop_reading()
            await resources.close(CLOSE_SECONDS)
    finally:
        endpoint.close()
        streams.close()
        for task in sweeping:
            task.cancel()
