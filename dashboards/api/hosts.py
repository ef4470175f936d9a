"""Virtual hosts: an environment for a user, entered by ssh with a key. Who is no admin sees their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, check_conditions, page_of, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import Conflict, NotFound
from dashboards.visitor import Visitor
from isotherm import hosts as kept
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.role import Role
from isotherm.clock import iso
from isotherm.errors import Unavailable
from isotherm.hosts import HostsAway, HostsUnusable, HostTaken, NoSuchHost
from isotherm.hosts.host import MAX_NAME_CHARS, State, parsed, quantity
from isotherm.hosts.keys import MAX_KEYS, MAX_LINE_CHARS
from isotherm.settings import Settings

MayRead = Annotated[Visitor, may("hosts:read")]
MayWrite = Annotated[Visitor, may("hosts:write")]
MayChangeKeys = Annotated[Visitor, may("host-keys:write")]
Name = Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["lab-1"], description="Name of a host.")]
Quantity = Annotated[str, Field(max_length=20, examples=["2Gi"])]
KeyList = Annotated[
    list[Annotated[str, Field(max_length=MAX_LINE_CHARS)]],
    Field(min_length=1, max_length=MAX_KEYS, description="OpenSSH public keys, such as `ssh-ed25519 AAAA… ada@laptop`."),
]


class Host(BaseModel):
    """A host. `starting` becomes `running` when its sshd answers; `kept`: only its volume is there."""

    name: str
    user: str
    state: State
    detail: str = Field(description="Why it is so, or what does not hold of it.")
    address: str = Field(description="Its own; empty while it has none.")
    ssh: str = Field(description="The command that enters it.")
    cpus: float
    memory: str
    disk: str
    image: str
    created: str | None


class HostForm(BaseModel):
    """A host that is wanted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=200, description="A letter, then a-z, 0-9 and -.")
    user: str = Field(max_length=256, description="The account whose it is.")
    keys: KeyList
    cpus: float = 1.0
    memory: Quantity = "1Gi"
    disk: Quantity = "10Gi"


class HostKeys(BaseModel):
    """The public keys that let into a host."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keys: KeyList


def router(accounts: Accounts, settings: Settings, once: Once) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/hosts", tags=["hosts"], route_class=once.route())
    _add_hosts(routes, accounts, settings)
    _add_keys(routes, accounts, settings)
    return routes


def _add_hosts(routes: APIRouter, accounts: Accounts, settings: Settings) -> None:
    @routes.get("", response_model=Page[Host])
    async def list_hosts(request: Request, who: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the hosts, ascending by name."""
        with _said():
            found = await _hosts(accounts, settings).all("" if who.may(Role.ADMIN) else who.name)
        some, following = page_of(found, lambda one: one.name, cursor, limit)
        return sent(request, Page[Host](items=[_shown(one) for one in some], next=following))

    @routes.post("", response_model=Host, status_code=HTTPStatus.CREATED)
    async def create_host(request: Request, who: MayWrite, form: HostForm, key: IdempotencyKey = None) -> Response:
        """Begin to run a host; it can be entered when it is `running`."""
        spec = kept.Spec(
            name=form.name,
            user=form.user,
            keys=tuple(form.keys),
            cpus=form.cpus,
            memory=parsed("memory", form.memory),
            disk=parsed("disk", form.disk),
        )
        with _said():
            hosts = _hosts(accounts, settings)
            await hosts.create(spec, _actor(who))
            return sent(request, _shown(await hosts.get(spec.name)), HTTPStatus.CREATED)

    @routes.get("/{name}", response_model=Host)
    async def get_host(request: Request, who: MayRead, name: Name) -> Response:
        """Return a host."""
        with _said():
            return sent(request, _shown(await _own(_hosts(accounts, settings), who, name)))

    @routes.delete("/{name}", status_code=204)
    async def delete_host(
        request: Request,
        who: MayWrite,
        name: Name,
        keep_volume: Annotated[bool, Query(description="Keep /home for the next host of this name and user.")] = False,
    ) -> Response:
        """Delete a host with its volume; it is `deleting` until it is gone."""
        with _said():
            hosts = _hosts(accounts, settings)
            check_conditions(request, _shown(await hosts.get(name)))
            await hosts.delete(name, _actor(who), keep_volume=keep_volume)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _add_keys(routes: APIRouter, accounts: Accounts, settings: Settings) -> None:
    @routes.get("/{name}/keys", response_model=HostKeys)
    async def get_host_keys(request: Request, who: MayRead, name: Name) -> Response:
        """Return the public keys that let in, with an ETag by which they can be changed as they were seen."""
        with _said():
            hosts = _hosts(accounts, settings)
            await _own(hosts, who, name)
            return sent(request, _keys(await hosts.keys(name)))

    @routes.put("/{name}/keys", response_model=HostKeys)
    async def put_host_keys(request: Request, who: MayChangeKeys, name: Name, form: HostKeys) -> Response:
        """Let these keys in from now on, and no others; who is no admin may change those of their own hosts."""
        with _said():
            hosts = _hosts(accounts, settings)
            await _own(hosts, who, name)
            check_conditions(request, _keys(await hosts.keys(name)))
            return sent(request, _keys(await hosts.set_keys(name, "\n".join(form.keys), _actor(who))))


def _hosts(accounts: Accounts, settings: Settings) -> kept.Hosts:
    return kept.Hosts(kept.backend_of(settings), accounts)


async def _own(hosts: kept.Hosts, who: Visitor, name: str) -> kept.Host:
    """Return a host that a visitor may see; another's is none to them."""
    found = await hosts.get(name)
    if found.user != who.name and not who.may(Role.ADMIN):
        raise NoSuchHost(f"there is no host {name!r}")
    return found


@contextmanager
def _said() -> Iterator[None]:
    """Let what cannot be done to a host be what the API calls it."""
    try:
        yield
    except NoSuchHost as error:
        raise NotFound(str(error)) from error
    except (HostTaken, HostsUnusable) as error:
        raise Conflict(str(error)) from error
    except HostsAway as error:
        raise Unavailable(str(error)) from error


def _actor(who: Visitor) -> Actor:
    return Actor(who.name, who.address, session=who.session)


def _keys(keys: tuple[str, ...]) -> HostKeys:
    return HostKeys.model_construct(keys=list(keys))


def _shown(host: kept.Host) -> Host:
    return Host(
        name=host.name,
        user=host.user,
        state=host.state,
        detail=host.detail,
        address=host.address,
        ssh=host.ssh,
        cpus=host.cpus,
        memory=quantity(host.memory),
        disk=quantity(host.disk),
        image=host.image,
        created=iso(host.created) if host.created else None,
    )
