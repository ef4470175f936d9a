"""``isotherm users``: who may use the pages. Beside the store: whoever may reach that is trusted as an admin is."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.names import user_name
from isotherm.accounts.role import Role
from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import asked, iso, print_json, print_table, run
from isotherm.cli.sources import users as sources
from isotherm.errors import BadField
from isotherm.settings import Settings
from isotherm.store import client

app = typer.Typer(no_args_is_help=True, help="List users, create them, change what they may do, and let them in again.")

Name = Annotated[str, typer.Argument(help="Name of a user.")]

_Answer = TypeVar("_Answer")


def _role(text: str | Role) -> Role:
    try:
        return text if isinstance(text, Role) else Role.of(text)  # the default is parsed, too
    except BadField as error:
        raise typer.BadParameter(str(error)) from error


RoleOption = Annotated[
    Role, typer.Option("--role", parser=_role, help="viewer, operator or admin.", metavar="ROLE", show_default="viewer")
]


@app.command("list")
def list_users(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the users with their roles."""
    users = _with_users(Settings.load(data_dir=data_dir), lambda source: source.all(), "users:read")
    if as_json:
        print_json(
            [
                {
                    "name": user.name,
                    "role": user.role.word,
                    "disabled": user.is_disabled,
                    "must_change_password": user.must_change,
                    "single_sign_on": bool(user.subject),
                    "created": iso(user.created),
                    "logged_in": iso(user.logged_in) if user.logged_in else None,
                }
                for user in users
            ]
        )
    elif not users:
        print("there is no user; try: isotherm users add NAME --role admin")
    else:
        states = {user.name: "disabled" if user.is_disabled else "single sign-on" if user.subject else "" for user in users}
        rows = (
            (one.name, one.role.word, states[one.name], iso(one.logged_in) if one.logged_in else "never") for one in users
        )
        print_table(("name", "role", "", "last log-in"), rows)


@app.command()
def add(name: Name, role: RoleOption = Role.VIEWER, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Create a user, and print a password that they must change at their first log-in."""
    known = user_name(name)
    password = _with_users(Settings.load(data_dir=data_dir), lambda source: source.create(known, role))
    if as_json:
        print_json({"name": known, "role": role.word, "password": password})
    else:
        print(f"created {known}, {role.word}; the password, to be changed at the first log-in: {password}")


@app.command()
def role(
    name: Name,
    role: Annotated[Role, typer.Argument(parser=_role, help="viewer, operator or admin.", metavar="ROLE")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change what a user may do; pages that they have open are opened anew."""
    known = user_name(name)
    _with_users(Settings.load(data_dir=data_dir), lambda source: source.set_role(known, role))
    _say(as_json, f"{known} is {role.word} now", name=known, role=role.word)


@app.command()
def disable(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Keep a user out, and end their sessions."""
    known = user_name(name)
    _with_users(Settings.load(data_dir=data_dir), lambda source: source.set_disabled(known, True))
    _say(as_json, f"{known} is disabled", name=known, disabled=True)


@app.command()
def enable(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a disabled user in again."""
    known = user_name(name)
    _with_users(Settings.load(data_dir=data_dir), lambda source: source.set_disabled(known, False))
    _say(as_json, f"{known} is enabled", name=known, disabled=False)


@app.command()
def remove(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Forget a user, and end their sessions; what they did stays in the audit log."""
    known = user_name(name)
    _with_users(Settings.load(data_dir=data_dir), lambda source: source.remove(known))
    _say(as_json, f"removed {known}", name=known, removed=True)


@app.command()
def reset(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print a link by which a user may choose another password, once, within a day."""
    known = user_name(name)
    link = _with_users(Settings.load(data_dir=data_dir), lambda source: source.reset(known))
    _say(as_json, link, name=known, link=link)


@app.command()
def invite(role: RoleOption = Role.VIEWER, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print a link by which somebody may register, once, within 7 days."""
    link = _with_users(Settings.load(data_dir=data_dir), lambda source: source.invite(role))
    _say(as_json, link, role=role.word, link=link)


@app.command()
def audit(
    limit: Annotated[int, typer.Option(help="At most so many entries.", min=1, max=2_000)] = 50,
    text: Annotated[str, typer.Option(help="Only entries with this text.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what was done by whom and what was refused, newest first."""
    entries = with_accounts(Settings.load(data_dir=data_dir), lambda accounts, _: accounts.audit.read(limit, text=text))
    if as_json:
        print_json([{**{name: getattr(one, name) for name in _COLUMNS[1:]}, "time": iso(one.time)} for one in entries])
    else:
        print_table(_COLUMNS, ((iso(one.time), *(getattr(one, name) for name in _COLUMNS[1:])) for one in entries))


_COLUMNS = ("time", "who", "what", "target", "outcome", "address", "detail")


def _with_users(
    settings: Settings, work: Callable[[sources.Users], Awaitable[_Answer]], scope: str = "users:write"
) -> _Answer:
    """Do something to the users, wherever they are."""

    async def do() -> _Answer:
        async with sources.users(settings, scope) as source:
            return await work(source)

    return asked(settings, do())


def with_accounts(settings: Settings, work: Callable[[Accounts, Actor], Awaitable[_Answer]]) -> _Answer:
    """Do something to the accounts of the store."""

    async def do() -> _Answer:
        async with client.connected(settings) as redis:
            return await work(Accounts.of(redis, settings), Actor(f"cli ({getpass.getuser()})", "cli"))

    return run(settings, do())


def _say(as_json: bool, text: str, **values: Any) -> None:
    if as_json:
        print_json(values)
    else:
        print(text)
