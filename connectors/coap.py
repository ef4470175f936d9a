"""CoAP: ``POST /readings`` with SenML JSON (content format 110).

    coap-client -m post -t 110 -e '[{"n":"room-1/temperature","u":"Cel","v":21.5}]' coap://127.0.0.1:7302/readings

2.04 Changed is sent when Kafka has the readings. Errors carry a diagnostic payload: 4.00 for a payload that holds a reading
that was refused (the good ones are kept), 4.01 without a valid token where one is needed (``?token=…``), 4.13 for one that
is too large, 4.15 for another format, 5.03 when Kafka is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiocoap
from aiocoap import resource
from aiocoap.blockwise import IncompleteException
from aiocoap.numbers import codes
from aiocoap.numbers.contentformat import ContentFormat

from connectors.formats.catalogue import SENML_JSON
from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.errors import Unauthorized, Unavailable
from isotherm.rejects import Rejected

SENML_JSON_FORMAT = 110
ACCEPTED_FORMATS = (SENML_JSON_FORMAT, ContentFormat.JSON, None)


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where."""
    settings = site.settings
    resources = resource.Site()
    resources.add_resource([".well-known", "core"], resource.WKCResource(resources.get_resources_as_linkheader))
    resources.add_resource(["readings"], _Readings(site))
    context = await aiocoap.Context.create_server_context(
        resources, bind=(settings.host, settings.coap_port), transports=["udp6"]
    )
    try:
        yield f"coap://{settings.host}:{settings.coap_port}/readings"
    finally:
        await context.shutdown()


class _Readings(resource.Resource):  # type: ignore[misc]
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.rt = "isotherm.readings"
        self.ct = SENML_JSON_FORMAT
        self._site = site

    async def render_to_pipe(self, pipe: Any) -> None:
        """Answer a request; blocks that do not fit together get 4.08 (RFC 7959 §2.9.2): aiocoap lets that be our fault."""
        try:
            await super().render_to_pipe(pipe)
        except ValueError as error:
            raise IncompleteException from error

    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        """Take in one payload."""
        identity = ANYONE
        pieces = iter([_of_another_format(request)])
        if request.opt.content_format in ACCEPTED_FORMATS:
            pieces = self._site.catalogue.decoders[SENML_JSON](request.payload, now_us())
        try:
            try:
                identity = await self._site.doorkeeper.identify(token=_token(request))
            except Unauthorized as error:
                pieces = iter([Decoded.nothing(Rejected("auth", str(error), request.payload))])
            receipt = await self._site.intake.store(pieces, peer=request.remote.hostinfo, identity=identity, form=SENML_JSON)
        except Unavailable as error:
            return _error(codes.SERVICE_UNAVAILABLE, str(error))
        if receipt.rejected:
            first = receipt.refusals[0]
            text = f"{receipt.rejected} refused, {receipt.accepted} kept; {first.reason}: {first.detail}"
            return _error(_CODES.get(first.reason, codes.BAD_REQUEST), text)
        return aiocoap.Message(code=codes.CHANGED)


_CODES = {
    "format": codes.UNSUPPORTED_CONTENT_FORMAT,
    "too_large": codes.REQUEST_ENTITY_TOO_LARGE,
    "auth": codes.UNAUTHORIZED,
}


def _token(request: aiocoap.Message) -> str | None:
    return next((query.removeprefix("token=") for query in request.opt.uri_query if query.startswith("token=")), None)


def _of_another_format(request: aiocoap.Message) -> Decoded:
    got = int(request.opt.content_format)
    return Decoded.nothing(
        Rejected("format", f"content format {got}, expected {SENML_JSON_FORMAT} (SenML JSON)", request.payload)
    )


def _error(code: codes.Code, text: str) -> aiocoap.Message:
    return aiocoap.Message(code=code, payload=text.encode())
