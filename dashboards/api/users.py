"""Users: who may log in, and what they may do. All of it is an admin's business."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, check_conditions, page_of, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import Conflict, NotFound
from dashboards.visitor import Visitor
from isotherm.accounts import names
from isotherm.accounts import users as kept
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.role import Role
from isotherm.clock import iso
from isotherm.errors import BadField, Changed, SettingsError
from isotherm.settings import Settings

MayRead = Annotated[Visitor, may("users:read")]
MayWrite = Annotated[Visitor, may("users:write")]
Name = Annotated[str, Path(max_length=names.MAX_NAME_CHARS, examples=["ada"], description="Name of a user.")]
Word = Literal["viewer", "operator", "admin"]


class User(BaseModel):
    """A user; `last_log_in` is null when there was none."""

    name: str
    role: Word
    created: str
    last_log_in: str | None
    is_disabled: bool
    must_change_password: bool = Field(description="Whether the password was given to them.")
    has_single_sign_on: bool = Field(description="Whether the identity provider keeps their password and role.")


class UserForm(BaseModel):
    """Who is new."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=256)
    role: Word = "viewer"


class Change(BaseModel):
    """What is to be otherwise; what is left out stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Word | None = None
    is_disabled: bool | None = None


class InvitationForm(BaseModel):
    """Who may register."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Word = "viewer"


class NewUser(BaseModel):
    """A user with a password, which is never shown again, and which they must change at the first log-in."""

    user: User
    password: str


class Link(BaseModel):
    """A link for a browser; it works once."""

    url: str


def router(accounts: Accounts, settings: Settings, once: Once) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["users"], route_class=once.route())
    _add_users(routes, accounts)
    _add_links(routes, accounts, settings)
    return routes


def _add_users(routes: APIRouter, accounts: Accounts) -> None:
    @routes.get("/users", response_model=Page[User])
    async def list_users(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List users, ascending by name."""
        some, following = page_of(await accounts.users.all(), lambda one: one.name, cursor, limit)
        return sent(request, Page[User](items=[_shown(one) for one in some], next=following))

    @routes.post("/users", status_code=201, response_model=NewUser)
    async def create_user(who: MayWrite, form: UserForm, _: IdempotencyKey = None) -> Response:
        """Create a user, with a password to hand over."""
        name = names.user_name(form.name)
        if await accounts.users.get(name) is not None:
            raise Conflict(f"there is a user {name} already; choose another name")
        password = await accounts.create(name, Role.of(form.role), _actor(who))
        made = NewUser(user=_shown(await _existing(accounts, name)), password=password)
        return _secret(made)

    @routes.get("/users/{name}", response_model=User)
    async def get_user(request: Request, _: MayRead, name: Name) -> Response:
        """Return a user, with an ETag by which they can be changed as they were seen."""
        return sent(request, _shown(await _existing(accounts, name)))

    @routes.patch("/users/{name}", response_model=User)
    async def change_user(request: Request, who: MayWrite, name: Name, form: Change, _: IdempotencyKey = None) -> Response:
        """Give a user another role, keep them out, or let them in again: it holds from their next request on."""
        user = await _existing(accounts, name)
        seen = user if check_conditions(request, _shown(user)) else None
        if form.role is not None and user.subject:
            raise Conflict(f"the identity provider says what {user.name} may do")
        role = Role.of(form.role) if form.role is not None and form.role != user.role.word else None
        is_disabled = form.is_disabled if form.is_disabled is not user.is_disabled else None
        if role is not None or is_disabled is not None:
            with _as_conflict():
                await accounts.change(user.name, role, is_disabled, _actor(who), seen=seen)
        return sent(request, _shown(await _existing(accounts, user.name)))

    @routes.delete("/users/{name}", status_code=204)
    async def delete_user(request: Request, who: MayWrite, name: Name) -> Response:
        """Forget a user with their sessions and tokens; what they did stays in the audit log."""
        user = await _existing(accounts, name)
        seen = user if check_conditions(request, _shown(user)) else None
        with _as_conflict():
            await accounts.remove(user.name, _actor(who), seen=seen)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _add_links(routes: APIRouter, accounts: Accounts, settings: Settings) -> None:
    def link(request: Request, path: str) -> Response:
        origin = settings.web_origin or f"{request.url.scheme}://{request.headers['host']}"
        return _secret(Link(url=origin + path))

    @routes.post("/users/{name}/reset", status_code=201, response_model=Link)
    async def reset(request: Request, who: MayWrite, name: Name, _: IdempotencyKey = None) -> Response:
        """Make a link by which a user may choose a password, within a day."""
        user = await _existing(accounts, name)
        with _as_conflict():
            return link(request, await accounts.link("reset", user.name, _actor(who)))

    @routes.post("/invitations", status_code=201, response_model=Link, tags=["users"])
    async def invite(request: Request, who: MayWrite, form: InvitationForm, _: IdempotencyKey = None) -> Response:
        """Make a link by which somebody may register, within seven days."""
        return link(request, await accounts.link("invite", form.role, _actor(who)))


async def _existing(accounts: Accounts, name: str) -> kept.User:
    try:
        user = await accounts.users.get(names.user_name(name))
    except BadField:
        user = None
    if user is None:
        raise NotFound(f"there is no user {name!r}")
    return user


@contextmanager
def _as_conflict() -> Iterator[None]:
    """Let what cannot be done to a user as they are be a conflict: the last admin stays one."""
    try:
        yield
    except Changed:
        raise
    except SettingsError as error:
        raise Conflict(str(error)) from error


def _secret(made: BaseModel) -> Response:
    return Response(made.model_dump_json(), HTTPStatus.CREATED, {"cache-control": "no-store"}, "application/json")


def _actor(who: Visitor) -> Actor:
    return Actor(who.name, who.address, session=who.session)


def _shown(user: kept.User) -> User:
    return User(
        name=user.name,
        role=user.role.word,
        created=iso(user.created),
        last_log_in=iso(user.logged_in) if user.logged_in else None,
        is_disabled=user.is_disabled,
        must_change_password=user.must_change,
        has_single_sign_on=bool(user.subject),
    )
