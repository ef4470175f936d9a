"""``isotherm hosts``: virtual hosts. It acts on what runs them: who may reach that and the store is trusted as an admin."""

from __future__ import annotations

import asyncio
import getpass
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from isotherm.accounts.accounts import Accounts, Actor
from isotherm.cli.options import AsJson, DataDir, duration_seconds
from isotherm.cli.output import iso, print_json, print_table, run
from isotherm.errors import SettingsError
from isotherm.hosts import Host, Hosts, Spec, backend_of
from isotherm.hosts.backend import to_the_end
from isotherm.hosts.host import LOGIN, NAME, VNC_PORT, checked, parsed, quantity
from isotherm.hosts.keys import fingerprint, public_keys
from isotherm.hosts.manifests import Surroundings, manifests
from isotherm.settings import Settings
from isotherm.store import client

GONE_SECONDS = 120.0

app = typer.Typer(no_args_is_help=True, help="Virtual hosts: an environment for a user, entered by ssh with a key.")

Name = Annotated[str, typer.Argument(help="Name of a host.")]
Keys = Annotated[
    list[Path],
    typer.Option(
        "--key", help="Public key file of who may enter, such as ~/.ssh/id_ed25519.pub; once for each, - reads it."
    ),
]
User = Annotated[str, typer.Option(help="The account whose it is; see `isotherm users`.")]
Cpus = Annotated[float, typer.Option(help="Processors that it may use at most.")]
Memory = Annotated[str, typer.Option(help="Memory that it may use at most.", metavar="512Mi|2Gi")]
Disk = Annotated[str, typer.Option(help="Size of its volume, /home.", metavar="10Gi")]

_Answer = TypeVar("_Answer")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help=f"What it is called: {NAME}")],
    key: Keys,
    user: User,
    cpus: Cpus = 1.0,
    memory: Memory = "1Gi",
    disk: Disk = "10Gi",
    wait: Annotated[bool, typer.Option(help="Wait until ssh answers.")] = True,
    within: Annotated[str, typer.Option(help="How long that may take.")] = "60s",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a host, wait until ssh answers, and print how to enter it; what fails or is interrupted leaves nothing."""
    spec, seconds = _spec(name, key, user, cpus, memory, disk), duration_seconds(within)
    settings = Settings.load(data_dir=data_dir)

    async def make() -> tuple[Host, str]:
        async with _hosts(settings) as (hosts, actor):
            was_kept = await hosts.create(spec, actor)
            try:
                if not wait:
                    return await hosts.get(name), ""
                with _progress(f"creating {name}") as look:
                    host = await hosts.until_it_answers(name, seconds, look)
                return host, await hosts.host_key(name)
            except BaseException:
                await to_the_end(hosts.delete(name, actor, keep_volume=was_kept))
                raise

    host, host_key = _undone_when_interrupted(settings, make())
    if as_json:
        print_json(_plain(host) | {"host_key": host_key})
        return
    print(host.ssh or f"{name} is {host.state}; see: isotherm hosts show {name}")
    if host_key:
        print(f"the key by which ssh knows it: {fingerprint(host_key)}", file=sys.stderr)
    if host.detail:
        print(f"note: {host.detail}", file=sys.stderr)


@app.command("list")
def list_hosts(
    user: Annotated[str, typer.Option(help="Only those of this user.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the hosts with their users and how to enter them."""
    found = _with_hosts(Settings.load(data_dir=data_dir), lambda hosts, _: hosts.all(user))
    if as_json:
        print_json([_plain(one) for one in found])
    elif not found:
        whose = f"{user} has no host" if user else "there is no host"
        print(f"{whose}; try: isotherm hosts create NAME --key ~/.ssh/id_ed25519.pub --user USER")
    else:
        rows = [(one.name, one.user, one.state, one.ssh, *_sizes(one), one.detail) for one in found]
        print_table(("name", "user", "state", "enter by", "cpus", "memory", "disk", ""), rows)


@app.command()
def show(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show a host: how it is, how to enter it and its desktop, and which keys let in."""

    async def read(hosts: Hosts, _: Actor) -> tuple[Host, tuple[str, ...], str]:
        host = await hosts.get(name)
        has_more = host.state not in ("kept", "incomplete", "deleting")
        return host, await hosts.keys(name) if has_more else (), await hosts.host_key(name) if has_more else ""

    host, keys, host_key = _with_hosts(Settings.load(data_dir=data_dir), read)
    if as_json:
        print_json(_plain(host) | {"keys": keys, "host_key": host_key})
        return
    cpus, memory, disk = _sizes(host)
    print(f"{name} of {host.user} is {host.state}{f': {host.detail}' if host.detail else ''}")
    made = f"created {iso(host.created)}{f' from {host.image}' if host.image else ''}"
    print(f"  at most {cpus} CPUs and {memory} of memory, {disk} of disk; {made}")
    if host.ssh:
        print(f"  enter it: {host.ssh}")
        print(
            f"  its desktop: ssh -L {VNC_PORT}:localhost:{VNC_PORT} {LOGIN}@{host.address}, and a VNC viewer on localhost:1"
        )
    if host_key:
        print(f"  ssh knows it by: {fingerprint(host_key)}")
    for one in keys:
        print(f"  lets in: {fingerprint(one)} {' '.join(one.split()[2:])}".rstrip())


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    keep_volume: Annotated[
        bool, typer.Option("--keep-volume", help="Keep /home: it is that of the next host of this name and user.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete a host and its volume, which cannot be undone."""
    settings = Settings.load(data_dir=data_dir)
    host = _with_hosts(settings, lambda hosts, _: hosts.get(name))
    if not yes:
        what = "all but its volume" if keep_volume else f"all that is on its volume of {quantity(host.disk)}"
        if not sys.stdin.isatty():
            raise SettingsError(f"this deletes the host {name} of {host.user} and {what}: say --yes")
        typer.confirm(f"Delete the host {name} of {host.user}, and {what}?", abort=True, err=True)

    async def remove(hosts: Hosts, actor: Actor) -> None:
        await hosts.delete(name, actor, keep_volume=keep_volume)
        with _progress(f"deleting {name}"):
            await hosts.until_it_is_gone(name, GONE_SECONDS)

    _with_hosts(settings, remove)
    if as_json:
        print_json({"name": name, "deleted": True, "volume_kept": keep_volume})
    else:
        print(f"deleted {name}{'; its volume is kept' if keep_volume else ''}")


@app.command("key")
def change_keys(
    name: Name,
    key: Annotated[list[Path] | None, typer.Option("--key", help="These let in from now on, and no others.")] = None,
    add: Annotated[list[Path] | None, typer.Option("--add", help="These let in as well.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replace the keys that let into a host, or add some; without options, list them."""
    given, more = _read(key or ()), _read(add or ())
    if given and more:
        raise typer.BadParameter("--key replaces all keys, --add keeps them: say one")

    async def change(hosts: Hosts, actor: Actor) -> tuple[str, ...]:
        if not (given or more):
            return await hosts.keys(name)
        before = await hosts.keys(name) if more else ()
        return await hosts.set_keys(name, "\n".join((*before, *given, *more)), actor)

    keys = _with_hosts(Settings.load(data_dir=data_dir), change)
    if as_json:
        print_json({"name": name, "keys": keys})
    else:
        print("\n".join(keys))


@app.command("manifests")
def print_manifests(
    name: Name,
    key: Keys,
    user: User,
    cpus: Cpus = 1.0,
    memory: Memory = "1Gi",
    disk: Disk = "10Gi",
    data_dir: DataDir = None,
) -> None:
    """Print what `create` would make in Kubernetes, for `kubectl apply -f -`; nothing is done."""
    around = Surroundings.of(Settings.load(data_dir=data_dir))
    items = manifests(_spec(name, key, user, cpus, memory, disk), around)
    print_json({"apiVersion": "v1", "kind": "List", "items": items})


def _spec(name: str, keys: list[Path], user: str, cpus: float, memory: str, disk: str) -> Spec:
    sizes = {"memory": parsed("memory", memory), "disk": parsed("disk", disk)}
    return checked(Spec(name=name, user=user, cpus=cpus, keys=_read(keys), **sizes))


def _read(files: Iterable[Path]) -> tuple[str, ...]:
    """Return the keys of files.

    Raises:
        SettingsError: one cannot be read, or holds something else.
    """
    found: list[str] = []
    for file in files:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise SettingsError(f"the key file {file} cannot be read: {why}") from error
        try:
            found += public_keys(text)
        except SettingsError as error:
            raise SettingsError(f"{file}: {error}") from error
    return tuple(found)


@asynccontextmanager
async def _hosts(settings: Settings) -> AsyncIterator[tuple[Hosts, Actor]]:
    backend = backend_of(settings)
    async with client.connected(settings) as redis:
        yield Hosts(backend, Accounts.of(redis, settings)), Actor(f"cli ({getpass.getuser()})", "cli")


def _with_hosts(settings: Settings, work: Callable[[Hosts, Actor], Awaitable[_Answer]]) -> _Answer:
    async def do() -> _Answer:
        async with _hosts(settings) as (hosts, actor):
            return await work(hosts, actor)

    return run(settings, do())


def _undone_when_interrupted(settings: Settings, work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run what undoes itself when it is cancelled, and give it the time to.

    Raises:
        KeyboardInterrupt: a signal has interrupted it.
    """

    async def whole() -> list[_Answer]:
        loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        try:
            return [await task]
        except asyncio.CancelledError as error:
            print(
                "\n".join(getattr(error, "__notes__", ())) or "isotherm: interrupted; nothing is left of it", file=sys.stderr
            )
            return []

    answers = run(settings, whole())
    if not answers:
        raise KeyboardInterrupt
    return answers[0]


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Host], None]]:
    """Show on a terminal what is waited for, and how it is; gives what is told that."""
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield lambda host: status.update(f"{title}: {host.detail or host.state}")


def _sizes(host: Host) -> tuple[str, str, str]:
    return f"{host.cpus:g}", quantity(host.memory), quantity(host.disk)


def _plain(host: Host) -> dict[str, Any]:
    _, memory, disk = _sizes(host)
    return {
        "name": host.name,
        "user": host.user,
        "state": host.state,
        "detail": host.detail,
        "address": host.address,
        "ssh": host.ssh,
        "cpus": host.cpus,
        "memory": memory,
        "disk": disk,
        "image": host.image,
        "created": iso(host.created) if host.created else None,
    }
