"""``isotherm tokens``: what programs show to the REST API instead of logging in."""

from __future__ import annotations

from typing import Annotated

import typer

from isotherm.accounts.api_tokens import DEFAULT_DAYS, MAX_DAYS, SCOPES
from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import iso, print_json, print_table
from isotherm.cli.users import with_accounts
from isotherm.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Tokens by which programs use the REST API.")

User = Annotated[str, typer.Argument(help="Name of the user whose token it is: it may never do more than they may.")]


@app.command("create")
def create(
    user: User,
    scope: Annotated[
        list[str], typer.Option(help=f"What it is for, once for each: read, write, {', '.join(SCOPES)}.", metavar="SCOPE")
    ],
    name: Annotated[str, typer.Option(help="What it is for, in a few words.")] = "made on the command line",
    days: Annotated[int, typer.Option(help="After which it is over.", min=1, max=MAX_DAYS)] = DEFAULT_DAYS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; it is never shown again."""

    token, made = with_accounts(
        Settings.load(data_dir=data_dir), lambda accounts, actor: accounts.create_token(user, name, scope, days, actor)
    )
    if as_json:
        print_json(
            {"token": token, "id": made.id, "user": made.user, "scopes": sorted(made.scopes), "expires": iso(made.expires)}
        )
    else:
        print(token)


@app.command("list")
def list_tokens(user: User, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the tokens of a user, newest first."""
    found = with_accounts(Settings.load(data_dir=data_dir), lambda accounts, _: accounts.tokens.of(user))
    if as_json:
        print_json(
            [
                {
                    "id": one.id,
                    "name": one.name,
                    "scopes": sorted(one.scopes),
                    "created": iso(one.created),
                    "expires": iso(one.expires),
                }
                for one in found
            ]
        )
    elif not found:
        print(f"{user} has no token; try: isotherm tokens create {user} --scope read")
    else:
        rows = [[one.id, one.name, " ".join(sorted(one.scopes)), iso(one.expires)] for one in found]
        print_table(["id", "name", "scopes", "expires"], rows)


@app.command("revoke")
def revoke(
    user: User, id: Annotated[str, typer.Argument(help="Of the token: isotherm tokens list USER.")], data_dir: DataDir = None
) -> None:
    """Make a token invalid, from the next request on."""
    made = with_accounts(Settings.load(data_dir=data_dir), lambda accounts, actor: accounts.revoke_token(user, id, actor))
    print(f"revoked {made.id}: {made.name}")
