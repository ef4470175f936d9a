"""Faults of the libraries, mended until they are; each has a test that shows when it is no longer needed.

bokeh-fastapi 0.1.8    a session is never freed: at the end of a websocket nobody tells the application
bokeh-fastapi 0.1.8    a websocket with a bad token, such as one of before a restart, is a traceback in the log
"""

from __future__ import annotations

import logging
import zlib
from typing import Any

from bokeh.protocol.exceptions import ProtocolError
from bokeh_fastapi.handler import WSHandler
from starlette.websockets import WebSocketState

from isotherm.logs import Throttle

log = logging.getLogger(__name__)

_BAD_TOKEN = (ProtocolError, RuntimeError, ValueError, KeyError, TypeError, zlib.error)


def mend() -> None:
    """Apply all mends, once, before any page is served."""
    if getattr(WSHandler, "isotherm_mended", False):
        return
    connect = WSHandler.ws_connect
    throttle = Throttle()

    async def connect_and_let_go(self: Any, websocket: Any) -> None:
        try:
            await connect(self, websocket)
        except _BAD_TOKEN as error:
            if (held := throttle("token")) is not None:
                log.info("refused a websocket: %r (%d more since the last line)", error, held)
            if websocket.application_state is WebSocketState.CONNECTING:
                await websocket.close(1008)
        finally:
            if self.connection is not None:
                session = self.connection.session
                self.application.client_lost(self.connection)
                if _is_unused(session):  # our pages reload instead of taking a session up again
                    await self.application_context._discard_session(session, _is_unused)

    WSHandler.ws_connect = connect_and_let_go
    WSHandler.isotherm_mended = True


def _is_unused(session: Any) -> bool:
    return bool(session.connection_count == 0)
