"""How a simulated device loads firmware: in ranges over HTTP (RFC 9110 §14), or in blocks over CoAP (RFC 7959 §2.4)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

CHUNK_BYTES = 16 * 1024
"""Of a range: what a small device holds at once."""

Load = Callable[[Mapping[str, Any]], AsyncIterator[bytes]]
"""Loads an image, piece after piece, from what a device is told of it; raises OSError when it does not come."""


def over_http(host: str, port: int, token: str | None) -> Load:
    """Return what loads images from an HTTP connector."""

    async def load(told: Mapping[str, Any]) -> AsyncIterator[bytes]:
        import aiohttp

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url, size = f"http://{host}:{port}/api/v1/{told['path']}", int(told["size"])
        try:
            async with aiohttp.ClientSession() as session:
                for begin in range(0, size, CHUNK_BYTES):
                    wanted = {"Range": f"bytes={begin}-{min(begin + CHUNK_BYTES, size) - 1}"}
                    async with session.get(url, headers=headers | wanted) as answer:
                        answer.raise_for_status()
                        yield await answer.read()
        except aiohttp.ClientError as error:
            raise OSError(f"{url}: {error}") from error

    return load


def over_coap(host: str, port: int, token: str | None) -> Load:
    """Return what loads images from a CoAP connector."""

    async def load(told: Mapping[str, Any]) -> AsyncIterator[bytes]:
        import aiocoap
        from aiocoap import error as coap_error
        from aiocoap.optiontypes import BlockOption

        query = f"?token={token}" if token else ""
        context = await aiocoap.Context.create_client_context(transports=["udp6"])
        number, more = 0, True
        try:
            while more:
                asked = aiocoap.Message(code=aiocoap.GET, uri=f"coap://{host}:{port}/{told['path']}{query}")
                asked.opt.block2 = BlockOption.BlockwiseTuple(number, False, 6)
                answer = await context.request(asked, handle_blockwise=False).response
                if answer.code != aiocoap.CONTENT:
                    raise OSError(f"{told['path']}: {answer.code} {answer.payload[:200]!r}")
                yield answer.payload
                more = answer.opt.block2 is not None and answer.opt.block2.more
                number += 1
        except coap_error.Error as error:
            raise OSError(f"{told['path']}: {error!r}") from error
        finally:
            await context.shutdown()

    return load


async def loaded(load: Load, told: Mapping[str, Any], progress: Callable[[int], None]) -> bytes:
    """Return an image, whole and as it was announced.

    Args:
        load: How to.
        told: What the device was told of it.
        progress: Is told how much is there, %, each time that it is a tenth more.

    Raises:
        OSError: it did not come.
        ValueError: it is another one.
    """
    data, said = bytearray(), 0
    async for piece in load(told):
        data += piece
        percent = 100 * len(data) // int(told["size"])
        if percent // 10 > said // 10 and percent < 100:
            said = percent
            progress(percent)
    if len(data) != told["size"] or hashlib.sha256(data).hexdigest() != told["sha256"]:
        raise ValueError(f"the image has {len(data)} bytes and another SHA-256 than {told['sha256'][:16]}…")
    return bytes(data)
