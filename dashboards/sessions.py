"""How an open page comes about: its HTML is the same for everybody but for the bar, its session begins with the websocket.

So a page is there at once, whoever asks for it without opening a websocket costs no session, and the websocket may come to
any process that knows the secret. bokeh-fastapi builds the session with the HTML, and the websocket has to find it again.
Also mended here are faults of bokeh-fastapi 0.1.8, each with a test that shows when that is no longer needed:

- a session was never freed: at the end of a websocket nobody told the application;
- a websocket with a bad token, such as one of before a restart, was a traceback in the log;
- the parts of messages to a slow browser were mixed, because several were sent at a time;
- a session that ended while it was written to was not freed: Panel cancels what it waits for, and got coroutines.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import bokeh_fastapi.application
from bokeh.protocol import Protocol
from bokeh.protocol.exceptions import ProtocolError
from bokeh.protocol.message import Message
from bokeh.protocol.receiver import Receiver
from bokeh.server.protocol_handler import ProtocolHandler
from bokeh.server.session import ServerSession
from bokeh.util.token import generate_jwt_token, generate_session_id, get_session_id
from bokeh_fastapi.handler import DocHandler, WSHandler
from fastapi import Request, WebSocket
from fastapi.responses import HTMLResponse
from panel.io.fastapi import dispatch_fastapi, extra_socket_handlers
from panel.io.resources import LOCAL_DIST, patch_model_css
from panel.io.server import server_html_page_for_session
from prometheus_client import Gauge
from starlette.datastructures import QueryParams
from starlette.websockets import WebSocketState
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.ioloop import IOLoop

from dashboards.access import identity
from dashboards.shell import HEADER, header
from dashboards.visitor import visitor_of
from isotherm.logs import Throttle

TOKEN_SECONDS = 300
"""How long a page may take from its HTML to its websocket: a slow phone loads 1.5 MB in between."""

log = logging.getLogger(__name__)

_BAD_TOKEN = (ProtocolError, RuntimeError, ValueError, KeyError, TypeError, zlib.error)
_throttle = Throttle()
_sockets: WeakSet[SocketHandler] = WeakSet()
Gauge("isotherm_web_unsent_messages", "Messages that wait until browsers have taken those before them.").set_function(
    lambda: sum(one.unsent for one in _sockets)
)


def install() -> None:
    """Let bokeh-fastapi use these handlers, for applications that are added from now on."""
    bokeh_fastapi.application.DocHandler = PageHandler
    bokeh_fastapi.application.WSHandler = SocketHandler
    extra_socket_handlers[SocketHandler] = _dispatch


def _dispatch(connection: Any, events: Any = None, msg: Message[Any] | None = None) -> list[asyncio.Future[int]]:
    """Send events or a message; returns what Panel waits for."""
    return [asyncio.ensure_future(sending) for sending in dispatch_fastapi(connection, events, msg)]


class PageHandler(DocHandler):  # type: ignore[misc]
    """Answers with the HTML of one page: what is drawn differs by visitor, the places for it do not."""

    _html: tuple[str, str] | None = None  # before and after the token

    async def get(self, request: Request) -> HTMLResponse:
        """Return the page, with a token for one session."""
        if self._html is None:
            self._html = await self._render()
        before, after = self._html
        who = visitor_of(request.headers)
        around = before.replace(HEADER, header(who, who.form_token, request.url.path), 1)
        return HTMLResponse(around + self._token(request.query_params, identity.shown(request.headers)) + after)

    def _token(self, query: QueryParams, who: Sequence[str]) -> str:
        arguments = {name: [value.encode() for value in query.getlist(name)] for name in query}
        secret = self.application.secret_key
        return str(
            generate_jwt_token(
                generate_session_id(secret_key=secret, signed=True),
                secret_key=secret,
                signed=True,
                expiration=TOKEN_SECONDS,
                extra_payload={"arguments": arguments, identity.CLAIM: list(who)},
            )
        )

    async def _render(self) -> tuple[str, str]:
        """Build a session that nobody uses, and its HTML. Roots are put to their places by their order, not their names."""
        token = self._token(QueryParams(), ())
        session = await open_session(self.application_context, token, HTTPHeaders(identity.NOBODY))
        document = session.document
        html = server_html_page_for_session(
            session,
            resources=self.application.resources(),
            title=document.title,
            template=document.template,
            template_variables=document.template_variables,
        )
        await self.application_context._discard_session(session, lambda _: True)
        before, after = html.split(token)
        return before, after


class SocketHandler(WSHandler):  # type: ignore[misc]
    """The websocket of one open page.

    Attributes:
        unsent: Messages that wait for the browser to take those before them.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unsent: int = 0
        self._turn = asyncio.Lock()
        self._session: ServerSession | None = None
        _sockets.add(self)

    async def ws_connect(self, websocket: WebSocket) -> None:
        """Serve a websocket to its end, and free its session."""
        try:
            await super().ws_connect(websocket)
        except _BAD_TOKEN as error:
            if (held := _throttle("token")) is not None:
                log.info("refused a websocket: %r (%d more since the last line)", error, held)
            if websocket.application_state is WebSocketState.CONNECTING:
                await websocket.close(1008)
        finally:
            if self.connection is not None:
                self.application.client_lost(self.connection)
            if self._session is not None and _is_unused(self._session):  # our pages reload, none takes a session up again
                await self.application_context._discard_session(self._session, _is_unused)

    async def _async_open(self, socket: WebSocket, token: str) -> None:
        headers = HTTPHeaders({name: value for name, value in socket.headers.items() if name.startswith(identity.PREFIX)})
        session = self._session = await open_session(self.application_context, token, headers)
        for root in session.document.roots:
            patch_model_css(root, dist_url=LOCAL_DIST)
        protocol = Protocol()
        self.receiver = Receiver(protocol)
        self.handler = ProtocolHandler()
        self.connection = self.application.new_connection(protocol, self, self.application_context, session)
        await self.send_message(protocol.create("ACK"))

    async def _receive(self, fragment: str | bytes) -> Message[Any] | None:
        """Take in a part of a message; what is none ends the websocket, with a line in the log now and then."""
        try:
            return await super()._receive(fragment)
        except Exception as error:  # noqa: BLE001 - whatever a stranger sends: text that is no JSON, JSON that is no message
            if (held := _throttle("message")) is not None:
                log.warning("a page sent what is no message: %r (%d more since the last line)", error, held)
            await self._socket.close(1003)
            return None

    async def send_message(self, message: Message[Any]) -> int:
        """Send a message after those before it; returns its bytes."""
        self.unsent += 1
        try:
            async with self._turn:
                return int(await super().send_message(message)) if self._is_open() else 0
        finally:
            self.unsent -= 1

    def _is_open(self) -> bool:
        """Tell whether there is still somebody to send to: what waited for its turn may have outlived them."""
        return bool(self._socket.client_state is WebSocketState.CONNECTED)


async def open_session(context: Any, token: str, headers: HTTPHeaders) -> ServerSession:
    """Return the session of a token that was looked at, built if it is new."""
    if context.io_loop is None:
        context._loop = IOLoop.current()
    line = RequestStartLine("GET", context.url, "HTTP/1.0")  # 1.1 would ask for a Host
    request = HTTPServerRequest(start_line=line, headers=headers)
    session: ServerSession = await context.create_session_if_needed(get_session_id(token), request, token)
    return session


def is_behind(session: ServerSession, most: int) -> bool:
    """Tell whether a browser has not taken ``most`` messages of what it was sent."""
    return any(connection._socket.unsent >= most for connection in session._subscribed_connections)


def _is_unused(session: Any) -> bool:
    return bool(session.connection_count == 0)
