"""The guard of the ASGI app, and where requests come from."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from bokeh.util.token import generate_jwt_token

from dashboards.access import cookies, identity, rules
from dashboards.access.origin import Origins
from dashboards.access.site import own_path
from dashboards.access.sockets import Sockets
from dashboards.api.rate import Rate
from dashboards.guard import Guard, Receive, Scope, Send
from isotherm.accounts.accounts import Accounts
from isotherm.accounts.role import Role
from isotherm.settings import Settings
from isotherm.store import client

LOCAL = Settings(login="auto", redis="redis://127.0.0.1:1/0")
NETWORK = Settings(host="0.0.0.0", web_origin="https://iot.example", redis="redis://127.0.0.1:1/0")
KEY = b"k" * 32


class Seen:
    """An app that answers everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})


def token(user: str = "local", role: str = "admin", session: str = "local") -> str:
    return str(generate_jwt_token("id", secret_key=KEY, signed=True, extra_payload={identity.CLAIM: [user, role, session]}))


class Asker:
    """Sends requests through the guard."""

    def __init__(self) -> None:
        self.app = Seen()
        self.answer: MutableMapping[str, Any] = {}

    async def __call__(
        self,
        kind: str = "http",
        path: str = "/",
        *,
        settings: Settings = LOCAL,
        method: str = "GET",
        query: str = "",
        subprotocols: tuple[str, ...] = ("bokeh", ""),
        **headers: Any,
    ) -> str:
        redis = client.connect(settings)
        accounts = Accounts.of(redis, settings)
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "websocket.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items() if value is not None]
        scope = {
            "type": kind,
            "path": path,
            "method": method,
            "headers": raw,
            "query_string": query.encode(),
            "client": ("192.0.2.7", 1),
            "subprotocols": ["bokeh", token()] if subprotocols == ("bokeh", "") else list(subprotocols),
        }
        rate = Rate(settings.api_rate, settings.api_burst)
        await Guard(self.app, settings, accounts, Sockets(redis, accounts.sessions), rate)(scope, receive, send)
        await redis.aclose()
        self.answer = sent[0]
        return str(sent[0].get("status", sent[0]["type"]))


@pytest.fixture
def ask() -> Iterator[Asker]:
    yield Asker()


@pytest.mark.parametrize("host", ["127.0.0.1:7300", "localhost:7300", "LOCALHOST", "[::1]:7300", "iot.localhost"])
async def test_this_machine_is_served(ask: Asker, host: str) -> None:
    assert await ask(host=host) == "200"


@pytest.mark.parametrize("host", ["evil.example:7300", "127.0.0.1.evil", "10.0.0.4:7300", "", "[", "localhost.evil"])
async def test_a_name_that_was_rebound_to_loopback_is_refused(ask: Asker, host: str) -> None:
    assert await ask(host=host) == "403"
    assert await ask("websocket", "/ws", host=host, origin=f"http://{host}") == "websocket.close"


async def test_a_server_with_an_origin_is_served_by_no_other_name(ask: Asker) -> None:
    assert await ask(path="/login", host="iot.example", settings=NETWORK) == "200"
    assert await ask(host="iot.example", settings=NETWORK, cookie="__Host-isotherm=x") == "503"  # the store is away
    assert await ask(path="/login", host="evil.example", settings=NETWORK) == "403"
    assert await ask(path="/healthz", host="10.0.0.4:7300", settings=NETWORK) == "200"


@pytest.mark.parametrize("forwarded", ["x_forwarded_for", "forwarded", "x_forwarded_host", "x_real_ip", "via"])
async def test_where_nobody_logs_in_nothing_is_taken_from_a_proxy(ask: Asker, forwarded: str) -> None:
    said: dict[str, Any] = {forwarded: "192.0.2.1"}
    assert await ask(host="localhost", **said) == "403"


FOREIGN = ["http://evil.example", "http://127.0.0.1:9999", "http://127.0.0.1:7300.evil.example", "null", "", None]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_opens_no_websocket_and_posts_no_form(ask: Asker, origin: Any) -> None:
    assert await ask("websocket", "/ws", host="127.0.0.1:7300", origin=origin) == "websocket.close"
    assert await ask(path="/account/password", method="POST", host="127.0.0.1:7300", origin=origin) == "403"
    assert await ask(path="/healthz", method="DELETE", host="127.0.0.1:7300", origin=origin) == "403"
    assert ask.app.headers is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_what_the_browser_says_of_the_sender_counts(ask: Asker, site: str) -> None:
    ours: dict[str, Any] = {"host": "127.0.0.1:7300", "origin": "http://127.0.0.1:7300"}
    assert await ask(path="/logout", method="POST", sec_fetch_site=site, **ours) == "403"
    assert await ask(path="/logout", method="POST", sec_fetch_site="same-origin", **ours) == "200"


async def test_an_origin_that_is_set_is_the_only_one() -> None:
    origins = Origins(NETWORK)
    host = (b"host", b"iot.example")
    for origin, ours in (
        (b"https://iot.example", True),
        (b"http://iot.example", False),
        (b"https://iot.example:444", False),
    ):
        assert origins.is_ours(dict([host, (b"origin", origin)])) is ours


async def test_our_page_gets_a_websocket(ask: Asker) -> None:
    assert await ask("websocket", "/ws", host="127.0.0.1:7300", origin="http://127.0.0.1:7300") == "websocket.accept"


@pytest.mark.parametrize(
    "offered",
    [
        ("bokeh", token("ada")),
        ("bokeh", token(session="0" * 64)),
        ("bokeh", token(role="viewer")),
        ("bokeh", generate_jwt_token("id", secret_key=KEY, signed=True)),
        ("bokeh", "A.B"),
        ("bokeh", "\u00ff"),
        ("bokeh",),
        (),
        ("other", token()),
    ],
)
async def test_a_websocket_needs_a_page_of_its_own_session(ask: Asker, offered: tuple[str, ...]) -> None:
    ours: dict[str, Any] = {"host": "127.0.0.1:7300", "origin": "http://127.0.0.1:7300"}
    assert await ask("websocket", "/ws", subprotocols=offered, **ours) == "websocket.close"


@pytest.mark.parametrize("query", ["bokeh-session-id=x", "bokeh_session_id=x"])
async def test_a_browser_does_not_name_its_session(ask: Asker, query: str) -> None:
    assert await ask(host="localhost", query=query) == "403"


@pytest.mark.parametrize("name", ["x-isotherm-user", "X-Isotherm-Role", "x_isotherm_session", "X-ISOTHERM-FORM"])
async def test_who_somebody_is_they_cannot_say_themselves(ask: Asker, name: str) -> None:
    kept = identity.without_identity([(name.encode(), b"root"), (b"accept", b"*/*")])
    assert kept == [(b"accept", b"*/*")]
    said: dict[str, Any] = {name.replace("-", "_").lower(): "root"}
    await ask(host="localhost", **said)
    assert ask.app.headers is not None
    assert ask.app.headers[b"x-isotherm-user"] == b"local"


@pytest.mark.parametrize(
    "path", ["//admin", "/./admin", "/static/../admin", "/static/%2e%2e/admin", "\\admin", "/a\nb", "admin", ""]
)
async def test_an_address_that_may_be_read_in_two_ways_is_refused(ask: Asker, path: str) -> None:
    assert await ask(path=path, host="localhost") == "400"


@pytest.mark.parametrize(
    "path", ["/Admin", "/ADMIN", "/admin/", "/admin/users", "/admin/ws", "/adminx", "/anything", "/ws/x", "/api2", "/docs"]
)
def test_what_is_not_listed_needs_an_admin(path: str) -> None:
    assert rules.least(path) == Role.ADMIN


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/", "/ws", "/device/ws", "/account/password", "/alarms/ws"])
def test_what_is_listed_needs_a_log_in_at_least(path: str) -> None:
    assert rules.least(path) == Role.VIEWER


def test_the_address_is_what_trusted_proxies_say_and_nobody_else() -> None:
    origins = Origins(Settings(web_proxies="10.0.0.0/24, 127.0.0.1"))
    said = {b"x-forwarded-for": b"1.1.1.1, 203.0.113.9, 10.0.0.5"}
    assert origins.address(("10.0.0.4", 1), said) == "203.0.113.9"
    assert origins.address(("192.0.2.1", 1), said) == "192.0.2.1"
    assert origins.address(("10.0.0.4", 1), {}) == "10.0.0.4"
    assert origins.address(None, said) == ""
    assert Origins(Settings()).address(("127.0.0.1", 1), said) == "127.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil",
        "",
        "evil",
        "/login",
        "\\\\e",
    ],
)
def test_the_log_in_leads_to_our_own_pages_only(text: str) -> None:
    assert own_path(text) == "/"


def test_a_form_token_belongs_to_its_cookie() -> None:
    assert cookies.is_form_token(cookies.form_token("a"), "a")
    assert not cookies.is_form_token(cookies.form_token("a"), "b")
    assert not cookies.is_form_token(cookies.form_token(""), "")
    assert not cookies.is_form_token("ü", "a")
    assert cookies.read("a=1; __Host-isotherm=x; b=2", cookies.SESSION) == "x"
    assert cookies.read("__Host-isotherm=x; __Host-isotherm=y", cookies.SESSION) == "", "of two neither is believed"
    made = cookies.set_cookie(cookies.SESSION, "x")
    assert made.startswith("__Host-")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= {part.strip() for part in made.split(";")}
