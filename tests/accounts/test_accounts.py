"""Accounts, against a real store: what each of them promises, and what somebody with bad intentions meets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from isotherm.accounts import throttle
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.passwords import AT_ONCE, WAITING, Passwords
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import KICKS, MAX_SESSIONS, Sessions, hash_of
from isotherm.accounts.users import User
from isotherm.errors import BadField, SettingsError, Throttled, Unauthorized, Unavailable
from isotherm.store.client import Client
from tests.accounts.conftest import ADA, CHEAP
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

PASSWORD = "correct horse battery"
STRANGER = Actor("", "198.51.100.7")
CLI = Actor("cli (root)", "cli")


async def made(accounts: Accounts, name: str, role: Role = Role.VIEWER) -> None:
    await accounts.users.create(User(name, role, password=CHEAP.hash(PASSWORD)))


async def test_the_first_admin_is_created_once_and_must_choose_a_password(accounts: Accounts) -> None:
    given = [one for one in await asyncio.gather(*(accounts.create_first() for _ in range(4))) if one]
    assert len(given) == 1
    identity = await accounts.log_in("admin", given[0], STRANGER)
    holder = await accounts.sessions.find(hash_of(identity))
    assert holder is not None
    assert (holder.name, holder.role, holder.must_change) == ("admin", Role.ADMIN, True)
    fresh = await accounts.change_password(given[0], PASSWORD, Actor("admin", "192.0.2.1", session=holder.session))
    assert await accounts.sessions.find(hash_of(identity)) is None
    assert (await accounts.sessions.find(hash_of(fresh))).must_change is False  # type: ignore[union-attr]
    assert await accounts.create_first() is None


async def test_a_name_is_the_same_in_every_case_and_composition(accounts: Accounts) -> None:
    user = await accounts.register("Zoe\u0308", PASSWORD, STRANGER, None)
    assert user.name == "zoë"
    assert await accounts.log_in("  ZOË ", PASSWORD, STRANGER)
    with pytest.raises(BadField, match="there is a user zoë already"):
        await accounts.register("ZOË", PASSWORD, STRANGER, None)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a/b", "<b>", "ada\n", "a\0b", "../x", "-rf", "a" * 65, "local", "a\u202eb"]
)
async def test_what_is_no_name_is_told(accounts: Accounts, name: str) -> None:
    with pytest.raises(BadField) as refused:
        await accounts.register(name if name != "ada\n" else "ada\nx", PASSWORD, STRANGER, None)
    assert refused.value.field == "name"


@pytest.mark.parametrize("password", ["", "short", "a" * 30, "x" * 1_000_000, "zoe-zoe-zo", "zoezoe1234"[:10] + "\0"])
async def test_what_is_no_password_is_told_before_anything_is_hashed(accounts: Accounts, password: str) -> None:
    with pytest.raises(BadField) as refused:
        await accounts.register("zoe-zoe-z", password, STRANGER, None)
    assert refused.value.field == "password"


async def test_a_wrong_name_and_a_wrong_password_are_answered_alike_and_both_are_hashed(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = Accounts(redis, Passwords(CHEAP))
    await made(accounts, "ada")
    await made(accounts, "bob")
    await accounts.users.create(User("root", Role.ADMIN, password=CHEAP.hash(PASSWORD)))
    await accounts.set_disabled("bob", True, ADA)
    verified: list[str] = []
    verify = accounts._passwords._verify

    def counted(hashed: str, password: str) -> bool:
        verified.append(hashed.rpartition("$")[0].rpartition("$")[0])
        return verify(hashed, password)

    monkeypatch.setattr(accounts._passwords, "_verify", counted)
    said = set()
    for name, password in (
        ("ada", "wrong password"),
        ("nobody", "wrong password"),
        ("bob", PASSWORD),
        ("<b>", "x"),
        ("", ""),
    ):
        with pytest.raises(Unauthorized) as refused:
            await accounts.log_in(name, password, STRANGER)
        said.add(str(refused.value))
    assert len(said) == 1
    assert len(verified) == 5
    assert len(set(verified)) == 1, "the same parameters for users and for nobody"
    outcomes = [(one.who, one.detail) for one in await accounts.audit.read() if one.what == "log in"]
    assert outcomes == [("ada", "wrong password")], "one line a minute from one address; a name that is none is not kept"


async def test_a_huge_password_costs_no_more_than_a_long_one(accounts: Accounts) -> None:
    await made(accounts, "ada")
    with pytest.raises(Unauthorized):
        await accounts.log_in("ada", "x" * 1_000_000, STRANGER)
    with pytest.raises(Unauthorized):
        await accounts.log_in("ada", "\ud800 lone surrogate", STRANGER)


async def test_an_old_hash_is_made_anew_at_log_in(redis: Client) -> None:
    stronger = Accounts(redis, Passwords(type(CHEAP)(time_cost=2, memory_cost=8, parallelism=1)))
    await made(stronger, "ada")
    await stronger.log_in("ada", PASSWORD, ADA)
    assert "t=2" in (await stronger.users.existing("ada")).password
    assert await stronger.log_in("ada", PASSWORD, ADA)


async def test_hashing_is_bounded() -> None:
    passwords = Passwords(CHEAP)
    flood = await asyncio.gather(*(passwords.hash("x") for _ in range(AT_ONCE + WAITING + 5)), return_exceptions=True)
    assert sum(isinstance(one, Unavailable) for one in flood) == 5
    assert await passwords.hash("x")


async def test_many_guesses_at_one_account_are_stopped_before_hashing(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(accounts, "ada")
    await accounts.log_in("ada", PASSWORD, ADA)
    for number in range(throttle.PER_ACCOUNT):
        with pytest.raises(Unauthorized, match="wrong"):
            await accounts.log_in("ada", "guess", Actor("", f"198.51.100.{number}"))

    async def never(*_: object) -> bool:
        raise AssertionError("hashed")

    with monkeypatch.context() as patch:
        patch.setattr(accounts._passwords, "matches", never)
        with pytest.raises(Throttled, match="too many attempts; try again in 15 minutes") as refused:
            await accounts.log_in("ada", PASSWORD, Actor("", "203.0.113.9"))
        assert 0 < refused.value.seconds <= throttle.SPAN_SECONDS
    assert await accounts.log_in("ada", PASSWORD, ADA), "where they have logged in before, the owner is not locked out"


async def test_many_accounts_guessed_from_one_address_are_stopped(accounts: Accounts, redis: Client) -> None:
    other = Accounts(redis, Passwords(CHEAP))  # another worker
    for number in range(throttle.PER_ADDRESS):
        with pytest.raises(Unauthorized, match="wrong"):
            await (accounts, other)[number % 2].log_in(f"user{number}", "guess", Actor("", f"2001:db8::{number + 1:x}"))
    with pytest.raises(Throttled):
        await accounts.log_in("somebody", "guess", Actor("", "2001:db8::ffff"))
    with pytest.raises(Throttled):
        await accounts.register("somebody", PASSWORD, Actor("", "2001:db8::ffff"), None)


async def test_a_log_in_begins_a_new_session_and_ends_the_one_before(accounts: Accounts) -> None:
    await made(accounts, "ada")
    first = await accounts.log_in("ada", PASSWORD, ADA)
    second = await accounts.log_in("ada", PASSWORD, Actor("ada", "192.0.2.1", "a browser", hash_of(first)))
    assert first != second
    assert await accounts.sessions.find(hash_of(first)) is None
    assert await accounts.sessions.find(hash_of(second)) is not None


async def test_the_store_knows_no_session_id_link_or_password(accounts: Accounts, server: Valkey) -> None:
    await made(accounts, "ada")
    secrets = [await accounts.log_in("ada", PASSWORD, ADA), PASSWORD]
    for path in (await accounts.link("invite", "viewer", CLI), await accounts.link("reset", "ada", CLI)):
        secrets.append(path.partition("=")[2])
    held = b""
    for key in server.ask("KEYS", "*"):
        held += key + server.ask("DUMP", key)
    assert not [secret for secret in secrets if secret.encode() in held]


async def test_a_session_ends_when_it_is_idle_and_when_it_is_old(accounts: Accounts, redis: Client, server: Valkey) -> None:
    await made(accounts, "ada")
    sessions = Sessions(redis, idle_hours=1, hours=1.5)
    identity = await sessions.begin("ada", address="", agent="")
    key = "iso:{accounts}:session:" + hash_of(identity)
    assert 3_590_000 < server.ask("PTTL", key) <= 3_600_000
    now = int(server.ask("HGET", key, "seen"))
    server.ask("HSET", key, "seen", now - 120_000, "expires", now + 1_800_000)
    assert await sessions.find(hash_of(identity)) is not None
    assert server.ask("PTTL", key) <= 1_800_000, "use does not put the end off for ever"
    assert int(server.ask("HGET", key, "seen")) >= now
    server.ask("HSET", key, "expires", now - 1)
    assert await sessions.find(hash_of(identity)) is None


async def test_a_user_has_a_bounded_number_of_sessions(accounts: Accounts) -> None:
    await made(accounts, "ada")
    for _ in range(MAX_SESSIONS + 3):
        await accounts.begin("ada", ADA)
    assert len(await accounts.sessions.of("ada")) == MAX_SESSIONS


async def kicks(redis: Client, work: Any) -> set[str]:
    """Return the sessions that are told to end while something is done."""
    pubsub = redis.pubsub()
    await pubsub.subscribe(KICKS)
    assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
    await work
    await redis.publish(KICKS, "end")
    found: set[str] = set()
    while True:
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
        if message["data"] == b"end":
            await pubsub.aclose()
            return found
        found.add(message["data"].decode())


@pytest.mark.parametrize("what", ["role", "disable", "remove", "password", "reset", "log out", "end"])
async def test_open_pages_are_told_when_what_they_rest_on_changes(accounts: Accounts, redis: Client, what: str) -> None:
    await made(accounts, "root", Role.ADMIN)
    await made(accounts, "ada")
    await made(accounts, "bob")
    await accounts.begin("bob", ADA)
    hashed = hash_of(await accounts.begin("ada", ADA))
    actor = Actor("ada", "192.0.2.1", session=hashed)
    link = (await accounts.link("reset", "ada", CLI)).partition("=")[2]
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "role": lambda: accounts.set_role("ada", Role.OPERATOR, ADA),
        "disable": lambda: accounts.set_disabled("ada", True, ADA),
        "remove": lambda: accounts.remove("ada", ADA),
        "password": lambda: accounts.change_password(PASSWORD, "another " + PASSWORD, actor),
        "reset": lambda: accounts.reset_password(link, "another " + PASSWORD, STRANGER),
        "log out": lambda: accounts.log_out(actor),
        "end": lambda: accounts.end_session(hashed, actor),
    }
    assert await kicks(redis, acts[what]()) == {hashed}
    holder = await accounts.sessions.find(hashed)
    assert (holder is not None and holder.role is Role.OPERATOR) if what == "role" else holder is None


async def test_nobody_ends_the_session_of_another(accounts: Accounts) -> None:
    await made(accounts, "ada")
    await made(accounts, "bob")
    bobs = hash_of(await accounts.begin("bob", ADA))
    with pytest.raises(SettingsError, match="over already"):
        await accounts.end_session(bobs, ADA)
    assert await accounts.sessions.find(bobs) is not None


async def test_the_last_admin_stays_whatever_is_tried(accounts: Accounts) -> None:
    await made(accounts, "root", Role.ADMIN)
    await accounts.users.create(User("ann", Role.ADMIN, subject="https://idp ann"))  # the provider may be away
    attempts = [
        accounts.set_role("root", Role.OPERATOR, ADA),
        accounts.set_disabled("root", True, ADA),
        accounts.remove("root", ADA),
    ]
    for attempt in attempts:
        with pytest.raises(SettingsError, match="root is the last admin; make somebody else admin first"):
            await attempt
    await made(accounts, "ada", Role.ADMIN)
    answers = await asyncio.gather(
        accounts.set_role("root", Role.VIEWER, ADA), accounts.set_role("ada", Role.VIEWER, ADA), return_exceptions=True
    )
    assert sum(isinstance(one, SettingsError) for one in answers) == 1, "of two who demote each other one stays"
    failed = [one.what for one in await accounts.audit.read() if one.outcome == "failed"]
    assert sorted(failed) == ["change role", "change role", "disable user", "remove user"]


async def test_an_invitation_works_once_and_gives_the_role_that_it_says(accounts: Accounts) -> None:
    link = (await accounts.link("invite", "operator", CLI)).partition("=")[2]
    with pytest.raises(BadField, match="at least 10"):
        await accounts.register("bob", "short", STRANGER, link)  # that does not use it up
    answers = await asyncio.gather(
        *(accounts.register(f"bob{number}", PASSWORD, STRANGER, link) for number in range(3)), return_exceptions=True
    )
    users = [one for one in answers if isinstance(one, User)]
    assert [user.role for user in users] == [Role.OPERATOR]
    assert {str(one) for one in answers if not isinstance(one, User)} == {
        "this link is over or was used; ask an admin for another"
    }
    assert [user.name for user in await accounts.users.all()] == [users[0].name]


async def test_a_reset_works_once_and_not_as_an_invitation(accounts: Accounts, server: Valkey) -> None:
    await made(accounts, "ada")
    link = (await accounts.link("reset", "ada", CLI)).partition("=")[2]
    with pytest.raises(BadField, match="over or was used"):
        await accounts.register("bob", PASSWORD, STRANGER, link)
    link = (await accounts.link("reset", "ada", CLI)).partition("=")[2]
    assert await accounts.reset_password(link, "another " + PASSWORD, STRANGER) == "ada"
    with pytest.raises(BadField, match="over or was used"):
        await accounts.reset_password(link, PASSWORD, STRANGER)
    assert await accounts.log_in("ada", "another " + PASSWORD, ADA)
    assert server.ask("KEYS", "*link*") == []


@pytest.mark.parametrize("change", ["password", "person", "removed"])
async def test_a_reset_is_of_the_account_as_it_was(accounts: Accounts, server: Valkey, change: str) -> None:
    await made(accounts, "ada")
    link = (await accounts.link("reset", "ada", CLI)).partition("=")[2]
    assert await accounts.resettable(link) == "ada"
    if change == "password":
        await accounts.change_password(PASSWORD, "another " + PASSWORD, ADA)
    else:
        await made(accounts, "eve", Role.ADMIN)
        await accounts.remove("ada", ADA)
    if change == "person":
        await made(accounts, "ada")
    assert await accounts.resettable(link) is None
    with pytest.raises(BadField, match="over or was used"):
        await accounts.reset_password(link, "a third " + PASSWORD, STRANGER)
    assert server.ask("KEYS", "*link*") == []


async def test_a_link_is_worth_no_more_than_who_made_it(accounts: Accounts) -> None:
    for name in ("ada", "root"):
        await made(accounts, name, Role.ADMIN)
    invitation = (await accounts.link("invite", "admin", ADA)).partition("=")[2]
    reset = (await accounts.link("reset", "root", ADA)).partition("=")[2]
    assert await accounts.invited(invitation)
    assert await accounts.resettable(reset) == "root"
    await accounts.set_role("ada", Role.OPERATOR, Actor("root"))
    assert await accounts.invited(invitation) is None
    with pytest.raises(BadField, match="over or was used"):
        await accounts.register("eve", PASSWORD, STRANGER, invitation)
    with pytest.raises(BadField, match="over or was used"):
        await accounts.reset_password(reset, "another " + PASSWORD, STRANGER)
    assert [user.name for user in await accounts.users.all()] == ["ada", "root"]


async def test_the_audit_log_is_read_backwards_in_pages_and_searched(accounts: Accounts) -> None:
    for number in range(5):
        await accounts.audit.write("ada", "acknowledge alarm", f"alarm-{number}")
    await accounts.audit.refuse("", "foreign origin", "/ws", address="192.0.2.9")
    newest = await accounts.audit.read(2)
    assert [one.what for one in newest] == ["foreign origin", "acknowledge alarm"]
    older = await accounts.audit.read(10, newest[-1].id)
    assert [one.target for one in older] == ["alarm-3", "alarm-2", "alarm-1", "alarm-0"]
    assert [one.target for one in await accounts.audit.read(text="ALARM-2")] == ["alarm-2"]
    assert await accounts.audit.read(before="0-1") == []


async def test_a_flood_of_refusals_pushes_nothing_out(accounts: Accounts, server: Valkey) -> None:
    await accounts.audit.write("ada", "change role", "bob")
    for _ in range(500):
        await accounts.audit.refuse("", "role", "/admin", address="192.0.2.9", detail="x" * 10_000)
    assert server.ask("XLEN", "iso:{accounts}:refused") == 1
    assert [one.what for one in await accounts.audit.read()] == ["role", "change role"]
    assert len((await accounts.audit.read())[0].detail) == 200


async def test_a_user_of_the_identity_provider_never_takes_over_an_account(accounts: Accounts) -> None:
    await made(accounts, "ada", Role.ADMIN)
    with pytest.raises(Unauthorized, match="belongs to another account"):
        await accounts.enter(User("ada", Role.VIEWER, subject="https://idp 7"), STRANGER)
    await accounts.enter(User("bob", Role.VIEWER, subject="https://idp 8"), STRANGER)
    await accounts.enter(User("bob", Role.OPERATOR, subject="https://idp 8"), STRANGER)
    assert (await accounts.users.existing("bob")).role is Role.OPERATOR
    with pytest.raises(Unauthorized, match="belongs to another account"):
        await accounts.enter(User("bob", Role.ADMIN, subject="https://idp 9"), STRANGER)
    with pytest.raises(Unauthorized):
        await accounts.log_in("bob", "", STRANGER)
    with pytest.raises(SettingsError, match="identity provider"):
        await accounts.link("reset", "bob", CLI)
