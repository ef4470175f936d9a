"""API tokens of who asks. A token gives no other one more than it has: neither scopes nor time."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.access import identity
from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import Conflict, NotFound
from dashboards.visitor import NotAllowed, Visitor
from isotherm.accounts import api_tokens as kept
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.clock import iso, now_us
from isotherm.errors import BadField, SettingsError
from isotherm.limits import DAY

MayRead = Annotated[Visitor, may("tokens:read")]
MayWrite = Annotated[Visitor, may("tokens:write")]
Id = Annotated[str, Path(max_length=40)]


class Token(BaseModel):
    """A token, without what it is."""

    id: str
    name: str
    scopes: list[str]
    created: str
    expires: str


class TokenForm(BaseModel):
    """What a new token is for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=kept.MAX_NAME_CHARS, description="What it is for, in a few words.")
    scopes: list[str] = Field(min_length=1, max_length=100, description="`read` and `write` stand for all of theirs.")
    days: int = Field(kept.DEFAULT_DAYS, ge=1, le=kept.MAX_DAYS, description="After which it is over.")


class NewToken(Token):
    """A new token; what it is, is never shown again."""

    token: str


def router(accounts: Accounts, once: Once) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/tokens", tags=["tokens"], route_class=once.route())

    @routes.get("", response_model=Page[Token])
    async def list_tokens(request: Request, who: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the tokens of who asks, ascending by id."""
        found = sorted(await accounts.tokens.of(who.name), key=lambda one: one.id)
        some, following = page_of(found, lambda one: one.id, cursor, limit)
        return sent(request, Page[Token](items=[_shown(one) for one in some], next=following))

    @routes.post("", status_code=201, response_model=NewToken)
    async def create_token(request: Request, who: MayWrite, form: TokenForm, _: IdempotencyKey = None) -> Response:
        """Make a token of who asks. One that is asked for with a token has no more scopes than that, and ends no later."""
        if who.is_local:
            raise Conflict("nobody logs in here: programs need no token")
        await _check_bounds(accounts, request, who, form)
        try:
            token, made = await accounts.create_token(who.name, form.name, form.scopes, form.days, _actor(who))
        except BadField:
            raise
        except SettingsError as error:
            raise Conflict(str(error)) from error
        body = NewToken(**_shown(made).model_dump(), token=token).model_dump_json()
        return Response(body, HTTPStatus.CREATED, {"cache-control": "no-store"}, "application/json")

    @routes.delete("/{id}", status_code=204)
    async def delete_token(who: MayWrite, id: Id) -> Response:
        """Make a token invalid, from the next request on."""
        try:
            await accounts.revoke_token(who.name, id, _actor(who))
        except SettingsError as error:
            raise NotFound(f"you have no token {id!r}") from error
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return routes


async def _check_bounds(accounts: Accounts, request: Request, who: Visitor, form: TokenForm) -> None:
    """See that what is asked for with a token is no more than that.

    Raises:
        NotAllowed: it is.
    """
    scopes = identity.scopes(request.headers)
    if scopes is None:
        return
    if more := kept.expanded(form.scopes) - scopes:
        raise NotAllowed(f"the token that asks has not the scopes {' '.join(sorted(more))}, and cannot give them", "scope")
    own = await accounts.tokens.by_hash(who.session)
    if own is not None and now_us() + form.days * DAY > own.expires:
        raise NotAllowed(f"the token that asks ends at {iso(own.expires)}, and what it makes cannot end later", "scope")


def _actor(who: Visitor) -> Actor:
    return Actor(who.name, who.address, session=who.session)


def _shown(token: kept.ApiToken) -> Token:
    return Token(
        id=token.id,
        name=token.name,
        scopes=sorted(token.scopes),
        created=iso(token.created),
        expires=iso(token.expires),
    )
