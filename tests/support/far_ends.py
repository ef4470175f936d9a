"""Far ends of channels on this machine: an HTTP server and an SMTP server that answer as a test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import TestServer
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

STALL: tuple[int, dict[str, str], str] = (0, {}, "")
"""The answer that never comes."""


class Hook:
    """Takes POSTs. Of its answers each request gets the next, the last one for ever: status, headers and text."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], str]] = [(204, {}, "")]
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.came = asyncio.Event()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Answer one."""
        self.requests.append((dict(request.headers), await request.read()))
        self.came.set()
        status, headers, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not status:
            await asyncio.Event().wait()
        return web.Response(status=status, headers=headers, text=text)


@asynccontextmanager
async def hook() -> AsyncIterator[Hook]:
    """Run an HTTP server for the length of the block."""
    far_end = Hook()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", far_end.take)
    server = TestServer(app, host="127.0.0.1", handler_cancellation=True)
    await server.start_server(shutdown_timeout=0.1)
    far_end.url = str(server.make_url("/hooks/t0ken-of-the-hook"))
    try:
        yield far_end
    finally:
        await server.close()


class Mailbox:
    """Takes mail; ``refuses`` names recipients and what is answered to them."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.refuses: dict[str, str] = {}
        self.logins: list[tuple[bytes, bytes]] = []
        self.port = 0

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:
        """Take or refuse a recipient."""
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Take a mail."""
        mail = message_from_bytes(cast(bytes, envelope.content), policy=policy.default)
        self.mails.append((list(map(str, envelope.rcpt_tos)), mail))
        return "250 2.0.0 taken as 4711"

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        """Let in who knows the password."""
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret-word", handled=False)


@asynccontextmanager
async def mailbox(*, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None) -> AsyncIterator[Mailbox]:
    """Run an SMTP server for the length of the block: with TLS from the first byte, with STARTTLS, or in clear."""
    far_end = Mailbox()
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"loop": loop, "hostname": "localhost"}
    if tls or starttls:
        options |= {"authenticator": far_end.authenticate, "auth_required": True, "auth_require_tls": starttls is not None}
    server = await loop.create_server(
        lambda: SMTP(far_end, tls_context=starttls, require_starttls=starttls is not None, **options),
        "127.0.0.1",
        0,
        ssl=tls,
    )
    far_end.port = server.sockets[0].getsockname()[1]
    try:
        yield far_end
    finally:
        server.close()
