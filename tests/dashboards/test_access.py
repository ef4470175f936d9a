"""The real web process with accounts, by HTTP: roles on every page, forms, links, and attacks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from redis import Redis
from yarl import URL

from dashboards.access.site import MAX_FORM_BYTES
from dashboards.access.sockets import CODE
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.passwords import Passwords
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import hash_of
from isotherm.accounts.users import User
from isotherm.clock import now_us
from isotherm.settings import Settings
from isotherm.store import client
from tests.accounts.conftest import CHEAP
from tests.dashboards.client import Client, bokeh_token, form_token
from tests.dashboards.stack import Filler, Web
from tests.support.ports import free_port
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

PASSWORD = "correct horse battery"
ROLES = {"vera": Role.VIEWER, "otto": Role.OPERATOR, "anna": Role.ADMIN}
LIMIT = 10.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A store for all tests of this module, with one user of each role."""
    directory = tmp_path_factory.mktemp("access")
    with Valkey(directory / "valkey") as valkey:
        made = Settings(data_dir=directory, redis=valkey.url, web_port=free_port(), registration="invite")
        asyncio.run(_prepare(made))
        yield made


@pytest.fixture(scope="module")
def web(settings: Settings) -> Iterator[Web]:
    with Web(settings) as process:
        yield process


async def _prepare(settings: Settings) -> None:
    async with kernel(settings) as accounts:
        for name, role in ROLES.items():
            await accounts.users.create(User(name, role, password=CHEAP.hash(PASSWORD)))
    await Filler(settings).write({"room-1/temperature": [(now_us(), 1.0)]})


@asynccontextmanager
async def kernel(settings: Settings) -> AsyncIterator[Accounts]:
    """The accounts as another process, such as the command line, has them."""
    async with client.connected(settings) as redis:
        yield Accounts(redis, Passwords(CHEAP))


@pytest.fixture
async def visit(settings: Settings, web: Web) -> AsyncIterator[Callable[..., Any]]:
    """Opens a browser, logged in as a user or not; without the delay of the log-in form."""
    opened: list[Client] = []

    async def open(name: str | None = None) -> Client:
        one = Client(web.url)
        opened.append(one)
        if name is not None:
            async with kernel(settings) as accounts:
                one.cookies["__Host-isotherm"] = await accounts.sessions.begin(name, address="192.0.2.1", agent="test")
        return one

    yield open
    for one in opened:
        await one.__aexit__(None, None, None)


@pytest.fixture(autouse=True)
def _no_counts_of_other_tests(settings: Settings) -> None:
    with Redis.from_url(settings.redis) as redis:
        for key in redis.scan_iter("iso:{accounts}:tries:*"):
            redis.delete(key)


Visit = Callable[..., Any]


async def entries(settings: Settings, what: str) -> list[Any]:
    async with kernel(settings) as accounts:
        return [one for one in await accounts.audit.read(2_000) if one.what == what]


@pytest.mark.parametrize(
    ("path", "nobody", "vera", "otto", "anna"),
    [
        ("/healthz", 200, 200, 200, 200),
        ("/readyz", 200, 200, 200, 200),
        ("/assets/isotherm.css", 200, 200, 200, 200),
        ("/static/js/bokeh.min.js", 200, 200, 200, 200),
        ("/", 303, 200, 200, 200),
        ("/device?id=room-1", 303, 200, 200, 200),
        ("/account", 303, 200, 200, 200),
        ("/logout", 303, 200, 200, 200),
        ("/login", 200, 303, 303, 303),
        ("/admin", 303, 403, 403, 200),
        ("/admin/devices", 303, 403, 403, 200),
        ("/admin/hosts", 303, 403, 403, 200),
        ("/admin/audit", 303, 403, 403, 200),
        ("/admin/settings", 303, 403, 403, 200),
        ("/admin/", 303, 403, 403, 307),
        ("/Admin", 303, 403, 403, 404),
        ("/nowhere", 303, 403, 403, 404),
        ("/openapi.json", 303, 403, 403, 404),
        ("/docs", 303, 403, 403, 404),
    ],
)
async def test_each_role_opens_its_pages(visit: Visit, path: str, nobody: int, vera: int, otto: int, anna: int) -> None:
    found = [(await (await visit(name)).get(path)).status for name in (None, "vera", "otto", "anna")]
    assert found == [nobody, vera, otto, anna]


FORMS = {
    "/admin/users/create": {"name": "eve", "role": "admin"},
    "/admin/users/role": {"name": "vera", "role": "admin"},
    "/admin/users/disable": {"name": "anna"},
    "/admin/users/remove": {"name": "anna", "sure": "yes"},
    "/admin/users/reset": {"name": "anna"},
    "/admin/users/invite": {"role": "admin"},
    "/admin/devices/add": {"name": "kitchen"},
    "/admin/devices/token": {"name": "kitchen"},
    "/admin/hosts/create": {"name": "lab", "user": "vera"},
    "/admin/hosts/delete": {"name": "lab", "sure": "yes"},
}


@pytest.mark.parametrize("path", FORMS)
async def test_what_a_viewer_may_not_do_is_refused_by_the_server(settings: Settings, visit: Visit, path: str) -> None:
    async with kernel(settings) as accounts:
        before = await accounts.users.all()
    for name in ("vera", "otto"):
        visitor = await visit(name)
        refused = await visitor.post(path, "/account", **FORMS[path])
        assert (refused.status, "it needs admin" in refused.text) == (403, True)
    nobody = await visit()
    assert (await nobody.ask("POST", path, urlencode(FORMS[path]))).status == 401
    async with kernel(settings) as accounts:
        assert [(one.name, one.role, one.is_disabled) for one in await accounts.users.all()] == [
            (one.name, one.role, one.is_disabled) for one in before
        ]
    assert await entries(settings, "role")


async def test_logging_in_by_the_form_and_out_again(settings: Settings, visit: Visit) -> None:
    visitor = await visit()
    wanted = await visitor.get("/device?id=room-1")
    assert wanted.location == "/login?next=" + quote("/device?id=room-1", safe="")
    page = await visitor.get(wanted.location)
    assert 'autocomplete="current-password"' in page.text
    wrong = await visitor.log_in("vera", "wrong")
    assert (wrong.status, "Name or password is wrong" in wrong.text, "wrong" in wrong.headers) == (401, True, False)
    before = dict(visitor.cookies)
    done = await visitor.post("/login", "/login", name="VERA", password=PASSWORD, next="/device?id=room-1")
    assert (done.status, done.location) == (303, "/device?id=room-1")
    assert visitor.cookies.keys() == {"__Host-isotherm"}, "the cookie of the form has gone"
    assert visitor.cookies["__Host-isotherm"] not in before.values()
    cookie = done.headers["Set-Cookie"]
    assert all(part in cookie for part in ("; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"))
    assert (await visitor.get("/device?id=room-1")).status == 200

    stolen = dict(visitor.cookies)
    out = await visitor.post("/logout", "/account")
    assert (out.status, out.location, visitor.cookies) == (303, "/login", {})
    visitor.cookies = stolen
    replayed = await visitor.get("/account")
    assert (replayed.status, replayed.location) == (303, "/login?next=%2Faccount")
    assert visitor.cookies == {}, "the browser is told to forget it"
    assert {one.what for one in await audit_of(settings)} >= {"log in", "log out", "session cookie"}


async def audit_of(settings: Settings) -> list[Any]:
    async with kernel(settings) as accounts:
        return await accounts.audit.read(2_000)


async def test_a_session_cannot_be_fixed_beforehand(settings: Settings, visit: Visit) -> None:
    attacker, victim = await visit("otto"), await visit()
    victim.cookies = dict(attacker.cookies)  # planted in the victim's browser
    assert (await victim.get("/login")).status == 303  # it is otto's
    chosen = await visit()
    chosen.cookies["__Host-isotherm"] = "A" * 43
    await chosen.log_in("vera", PASSWORD)
    assert chosen.cookies["__Host-isotherm"] != "A" * 43
    async with kernel(settings) as accounts:
        assert await accounts.sessions.find(hash_of("A" * 43)) is None


@pytest.mark.parametrize(
    "cookie", ["A" * 43, "", "0", "../../x", "a\u00ffb", "x" * 4_000, "admin", "iso:{accounts}:user:anna"]
)
async def test_a_forged_cookie_opens_nothing(visit: Visit, cookie: str) -> None:
    visitor = await visit()
    found = await visitor.get("/admin", cookie=f"__Host-isotherm={cookie}")
    assert (found.status, found.location) == (303, "/login?next=%2Fadmin")


async def test_two_cookies_of_one_name_are_none(visit: Visit) -> None:
    visitor = await visit("anna")
    planted = f"__Host-isotherm=x; {visitor.cookie}"
    assert (await visitor.get("/admin", cookie=planted)).status == 303


@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
async def test_a_form_of_another_site_changes_nothing(settings: Settings, visit: Visit, origin: str) -> None:
    visitor = await visit("anna")
    body = urlencode({"token": form_token((await visitor.get("/account")).text), "role": "admin"})
    answer = await visitor.ask("POST", "/admin/users/invite", body, origin=origin)
    assert (answer.status, answer.text) == (403, "a form must be sent by a page of this server")
    assert await entries(settings, "foreign origin")


async def test_a_form_needs_the_token_of_its_own_session(settings: Settings, visit: Visit) -> None:
    anna, otto, nobody = await visit("anna"), await visit("otto"), await visit()
    others = form_token((await otto.get("/account")).text)
    for token in (others, "", "0" * 64, form_token((await nobody.get("/login")).text)):
        answer = await anna.ask("POST", "/admin/users/invite", urlencode({"token": token, "role": "admin"}))
        assert (answer.status, "belongs to another session" in answer.text) == (403, True)
    without_cookie = await (await visit()).ask(
        "POST", "/login", urlencode({"token": others, "name": "vera", "password": PASSWORD})
    )
    assert (without_cookie.status, "Cookies need HTTPS" in without_cookie.text) == (403, True)
    assert await entries(settings, "form token")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("x" * (MAX_FORM_BYTES + 1), "application/x-www-form-urlencoded", 413),
        (urlencode({"name": "vera", "password": "x" * 1_000_000}), "application/x-www-form-urlencoded", 413),
        ("&".join(f"a{n}=1" for n in range(500)), "application/x-www-form-urlencoded", 400),
        ("name=%ff%fe", "application/x-www-form-urlencoded", 400),
        ('{"name": "vera"}', "application/json", 415),
        ("", "multipart/form-data; boundary=x", 415),
    ],
)
async def test_a_form_that_is_none_is_refused(visit: Visit, body: str, kind: str, status: int) -> None:
    visitor = await visit()
    await visitor.get("/login")
    answer = await visitor.ask("POST", "/login", body, content_type=kind)
    assert answer.status == status


@pytest.mark.parametrize(
    "path",
    [
        "//admin",
        "/%2e%2e/admin",
        "/static/..%2fadmin",
        "/static/%2e%2e/admin",
        "/assets/%2e%2e/web.py",
        "/assets/%252e%252e/web.py",
    ],
)
async def test_no_way_round_the_rules(visit: Visit, path: str) -> None:
    visitor = await visit("vera")
    async with visitor._session.get(
        URL(visitor.url + path, encoded=True), headers={"Cookie": visitor.cookie}, allow_redirects=False
    ) as answer:
        assert answer.status in (400, 403, 404)


@pytest.mark.parametrize("module", ["isotherm.__main__", "dashboards.components", "", ".."])
async def test_no_address_names_a_module_that_is_imported(visit: Visit, module: str) -> None:
    path = f"/components/{module}/FleetTable/__css__/x.css"
    nobody, anna = await visit(), await visit("anna")
    assert (await nobody.get(path)).status in (303, 400)
    assert (await anna.get(path)).status in (404, 400)
    assert (await nobody.get("/healthz")).status == 200


async def test_a_file_that_is_not_there_is_not_kept_as_missing(visit: Visit) -> None:
    nobody = await visit()
    there, missing = await nobody.get("/static/js/bokeh.min.js?v=1"), await nobody.get("/static/js/none.js?v=1")
    assert (there.status, "immutable" in there.headers["Cache-Control"]) == (200, True)
    assert (missing.status, missing.headers["Cache-Control"]) == (404, "no-cache")


async def test_who_is_refused_is_named_whatever_others_at_the_address_do(settings: Settings, visit: Visit) -> None:
    async with kernel(settings) as accounts:
        for name in ("kim", "lou"):
            await accounts.users.create(User(name, Role.VIEWER))
    for name in ("kim", "lou"):
        assert (await (await visit(name)).get("/admin/audit")).status == 403
    assert {"kim", "lou"} <= {one.who for one in await entries(settings, "role")}


async def test_answers_carry_what_a_browser_must_hold_to(visit: Visit) -> None:
    page = await (await visit("vera")).get("/")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    nobody = await visit()
    assert (await nobody.get("/assets/isotherm.css")).headers["cache-control"] == "no-cache"
    assert (await nobody.get("/", host="evil.example")).status == 403


async def test_identity_headers_of_a_client_are_ignored(visit: Visit) -> None:
    visitor = await visit("vera")
    said = {"x_isotherm_user": "anna", "x_isotherm_role": "admin", "x_isotherm_session": "local"}
    assert (await visitor.get("/admin", **said)).status == 403
    assert "<h1>vera" in (await visitor.get("/account", **said)).text
    assert (await (await visit()).get("/", **said)).status == 303


async def test_metrics_are_for_this_machine_or_who_is_logged_in(visit: Visit) -> None:
    nobody, vera = await visit(), await visit("vera")
    assert (await nobody.get("/metrics")).status == 200
    assert (await nobody.get("/metrics", x_forwarded_for="192.0.2.1")).status == 303
    assert (await vera.get("/metrics", x_forwarded_for="192.0.2.1")).status == 200


async def test_a_websocket_takes_the_page_of_its_own_session_only(settings: Settings, visit: Visit) -> None:
    vera, anna, nobody = await visit("vera"), await visit("anna"), await visit()
    token = bokeh_token((await vera.get("/")).text)
    for one, headers in ((anna, {}), (nobody, {}), (vera, {"Origin": "http://evil.example"}), (vera, {"Origin": ""})):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await one.websocket("/ws", token, **headers)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await vera.websocket("/admin/ws", token)
    async with vera.websocket("/ws", token) as socket:
        assert (await asyncio.wait_for(socket.receive(), LIMIT)).type is aiohttp.WSMsgType.TEXT
    assert {one.what for one in await audit_of(settings)} >= {"foreign token", "foreign origin"}


@pytest.mark.parametrize("what", ["log out", "role", "disable", "password"])
async def test_open_websockets_end_when_the_session_does(settings: Settings, visit: Visit, what: str) -> None:
    name = f"user-{what.replace(' ', '-')}"
    async with kernel(settings) as accounts:
        await accounts.users.create(User(name, Role.VIEWER, password=CHEAP.hash(PASSWORD)))
        visitor, other = await visit(name), await visit("otto")
        async with (
            visitor.websocket("/ws", bokeh_token((await visitor.get("/")).text)) as socket,
            other.websocket("/ws", bokeh_token((await other.get("/")).text)) as kept,
        ):
            await asyncio.wait_for(socket.receive(), LIMIT)
            actor = Actor(name, "cli", session=hash_of(visitor.cookies["__Host-isotherm"]))
            acts: dict[str, Callable[[], Awaitable[object]]] = {
                "log out": lambda: accounts.log_out(actor),
                "role": lambda: accounts.set_role(name, Role.OPERATOR, actor),
                "disable": lambda: accounts.set_disabled(name, True, actor),
                "password": lambda: accounts.change_password(PASSWORD, "another " + PASSWORD, actor),
            }
            await acts[what]()
            async with asyncio.timeout(LIMIT):
                async for _ in socket:
                    pass
            assert socket.close_code == CODE
            assert not kept.closed
            await kept.ping()


async def test_somebody_registers_by_an_invitation_once(settings: Settings, visit: Visit) -> None:
    anna, somebody = await visit("anna"), await visit()
    assert (await somebody.get("/register")).status == 403
    made = await anna.post("/admin/users/invite", "/admin", role="operator")
    link = made.text.partition('value="' + anna.url)[2].partition('"')[0]
    assert link.startswith("/register?link=")
    assert "invited as operator" in (await somebody.get(link)).text
    fields = {"link": link.partition("=")[2], "name": "Žofie", "password": PASSWORD}
    short = await somebody.post("/register", link, **(fields | {"password": "short"}))
    assert (short.status, 'aria-describedby="password-note"' in short.text, 'value="Žofie"' in short.text) == (
        422,
        True,
        True,
    )
    done = await somebody.post("/register", link, **fields)
    assert (done.status, done.location) == (303, "/")
    assert "<h1>žofie <small>operator" in (await somebody.get("/account")).text
    assert (await (await visit()).get(link)).status == 403


async def test_a_password_is_reset_by_a_link_and_all_sessions_end(settings: Settings, visit: Visit) -> None:
    async with kernel(settings) as accounts:
        await accounts.users.create(User("rita", Role.VIEWER, password=CHEAP.hash(PASSWORD)))
    anna, rita, thief = await visit("anna"), await visit(), await visit("rita")
    made = await anna.post("/admin/users/reset", "/admin", name="rita")
    link = made.text.partition('value="' + anna.url)[2].partition('"')[0]
    done = await rita.post("/reset", link, link=link.partition("=")[2], password="another " + PASSWORD)
    assert (done.status, done.location) == (303, "/")
    assert (await rita.get("/")).status == 200
    assert (await thief.get("/")).status == 303
    assert (await rita.get(link)).status == 403


async def test_who_was_given_a_password_chooses_one_first(settings: Settings, visit: Visit) -> None:
    async with kernel(settings) as accounts:
        given = await accounts.create("gina", Role.VIEWER, Actor("anna"))
    gina = await visit()
    assert (await gina.log_in("gina", given)).status == 303
    assert (await gina.get("/")).location == "/account"
    token = await gina.post("/account/tokens/create", "/account", name="laptop", access="read", days="7")
    assert (token.status, token.location) == (303, "/account")
    async with kernel(settings) as accounts:
        assert await accounts.tokens.of("gina") == []
    wrong = await gina.post("/account/password", "/account", old="wrong", new=PASSWORD)
    assert (wrong.status, "This is not your password" in wrong.text) == (422, True)
    assert (await gina.post("/account/password", "/account", old=given, new=PASSWORD)).status == 303
    assert (await gina.get("/")).status == 200


async def test_own_sessions_are_listed_and_ended(visit: Visit) -> None:
    here, there = await visit("otto"), await visit("otto")
    assert "192.0.2.1" in (await here.get("/account")).text
    hashed = hash_of(there.cookies["__Host-isotherm"])
    assert (await here.post("/account/sessions", "/account", session=hashed)).status == 303
    assert (await there.get("/account")).status == 303
    assert (await here.get("/account")).status == 200
    stranger = await visit("vera")
    assert (
        await stranger.post("/account/sessions", "/account", session=hash_of(here.cookies["__Host-isotherm"]))
    ).status == 422
    assert (await here.get("/account")).status == 200


async def test_guessing_is_slowed_down_and_said(visit: Visit) -> None:
    guesser = await visit()
    answers = [await guesser.log_in("vera", f"guess {number}") for number in range(11)]
    assert [one.status for one in answers] == [401] * 10 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert "Too many attempts; try again in 15 minutes" in answers[-1].text


async def test_an_admin_acts_on_users_and_devices(settings: Settings, visit: Visit) -> None:
    anna = await visit("anna")
    made = await anna.post("/admin/users/create", "/admin", name="<script>", role="viewer")
    assert (made.status, "&lt;script&gt;" in made.text, "<script>" in made.text.partition("<main")[2]) == (422, True, False)
    assert "Password of eve" in (await anna.post("/admin/users/create", "/admin", name="eve", role="viewer")).text
    assert (await anna.post("/admin/users/role", "/admin", name="eve", role="operator")).status == 303
    assert "Remove eve?" in (await anna.post("/admin/users/remove", "/admin", name="eve")).text
    assert (await anna.post("/admin/users/remove", "/admin", name="eve", sure="yes")).status == 303
    last = await anna.post("/admin/users/disable", "/admin", name="anna")
    assert (last.status, "anna is the last admin" in last.text.lower()) == (422, True)
    assert (await anna.post("/admin/devices/add", "/admin/devices", name="kitchen")).status == 303
    again = await anna.post("/admin/devices/add", "/admin/devices", name="kitchen")
    assert (again.status, "There is a device kitchen already" in again.text) == (422, True)
    token = await anna.post("/admin/devices/token", "/admin/devices", name="kitchen")
    assert "<svg" in token.text
    assert (await anna.post("/admin/devices/revoke", "/admin/devices", name="kitchen", sure="yes")).status == 303
    log = (await anna.get("/admin/audit?text=kitchen")).text
    assert all(what in log for what in ("add device", "new device token", "revoke device tokens"))
    assert "change role" not in log


async def test_settings_are_shown_without_secrets(visit: Visit) -> None:
    page = (await (await visit("anna")).get("/admin/settings")).text
    assert "ISOTHERM_WEB_PORT" in page
