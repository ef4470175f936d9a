"""Virtual hosts as containers of this machine, by the command line of podman.

    | what                             | holds                                                            |
    |----------------------------------|------------------------------------------------------------------|
    | network ``isotherm-host-NAME``   | a bridge of its own, a part of ISOTHERM_HOSTS_NETWORK (apart.py)  |
    | volume ``isotherm-host-NAME``    | /home, with the key by which clients know the host               |
    | container ``isotherm-host-NAME`` | the rest, with the keys that let in                              |

They are made in this order and removed in the other, so who has made the network has the name: podman makes it once. Each
is labelled HOST, and with the fields of a `Label`, so what is there says how far a host is. Its address is fixed: a restart
does not change it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import shutil
import tarfile
from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any, Literal, NamedTuple

import msgspec

from isotherm.hosts.answering import answers
from isotherm.hosts.apart import HOST_PREFIX, keep_apart, pool_of
from isotherm.hosts.backend import HostsAway, HostsUnusable, HostTaken, NoSuchHost, to_the_end
from isotherm.hosts.host import CAPABILITIES, HOST_KEY, KEYS_FILE, KEYS_FOLDER, Host, Label, Spec, State

PREFIX = "isotherm-host-"
HOST, ADDRESS, QUOTA = "isotherm.host", "isotherm.host.address", "isotherm.host.quota"

Kind = Literal["container", "volume", "network"]
KINDS: tuple[Kind, ...] = ("container", "volume", "network")
"""In the order in which they are removed."""

COMMAND_SECONDS = 120.0
MAX_PROCESSES = 512
STOP_SECONDS = 3
FIRST_ADDRESS = 2
"""Of a host in its network: the gateway has 1."""

CUT_OFF = "it is being created, or that was cut off: then delete it"
NO_QUOTA = "its disk is not limited: the file system of podman's volumes keeps no quotas"

_STATES: dict[str, State] = {"running": "starting", "created": "incomplete", "initialized": "starting"}

log = logging.getLogger(__name__)


class Failed(HostsAway):
    """A command of podman has failed."""


class _Listed(msgspec.Struct, frozen=True):
    """What podman lists of a volume, a network or a container; the last three are a container's."""

    labels: dict[str, str]
    state: str = ""
    image: str = ""
    status: Any = ""


class _Subnet(msgspec.Struct, frozen=True):
    subnet: str


class _Network(msgspec.Struct, frozen=True):
    """What podman lists of any network."""

    subnets: list[_Subnet] = []


class _Things(NamedTuple):
    """What there is of a host."""

    volume: _Listed | None = None
    network: _Listed | None = None
    container: _Listed | None = None


class Podman:
    """Runs hosts; see `isotherm.hosts.backend.Backend`."""

    def __init__(self, image: str, pool: str, program: str = "podman") -> None:
        self._image = image
        self._pool = pool_of(pool)
        self._program = program

    async def check(self) -> None:
        """See that podman is there, is root's, and has the image."""
        if os.geteuid() != 0:
            raise HostsUnusable(
                "podman runs virtual hosts as root only: this machine cannot reach the networks of another user's containers"
            )
        if not await self._exists("image", self._image):
            raise HostsUnusable(
                f"podman has no image {self._image}: build it by `make host-image`, or name another in ISOTHERM_HOSTS_IMAGE"
            )

    async def all(self) -> list[Host]:
        """Return every host, ascending by name."""
        found = await self._survey(f"label={HOST}")
        if found:
            await keep_apart(self._pool)  # the rules may have gone with a restart of the machine
        return found

    async def find(self, name: str) -> Host | None:
        """Return a host, or None."""
        found = await self._survey(f"label={HOST}={name}")
        return found[0] if found else None

    async def create(self, spec: Spec) -> bool:
        """Begin to run a host, or raise HostTaken and leave everything as it is."""
        await self.check()
        there = await self.things(spec.name)
        if there.container or there.network:
            raise HostTaken(
                f"there is a host {spec.name} already; choose another name, or `isotherm hosts delete {spec.name}`"
            )
        check_volume(spec, there)
        await keep_apart(self._pool)
        return await _Creation(self, spec, self._image, self._pool).run()

    async def delete(self, name: str, *, keep_volume: bool = False) -> None:
        """Remove a host, or what there is of one, at once."""
        there = await self.things(name)
        present: list[Kind] = [kind for kind in KINDS if getattr(there, kind) and not (kind == "volume" and keep_volume)]
        if not present:
            raise NoSuchHost(f"there is no host {name}" + ("; its volume is kept already" if there.volume else ""))
        await to_the_end(self.remove(name, present))

    async def things(self, name: str) -> _Things:
        """Return what there is of a host."""
        return (await self._things(f"label={HOST}={name}")).get(name, _Things())

    async def keys(self, name: str) -> str:
        """Return the public keys that let in."""
        archive = await self._in(name, "cp", f"{PREFIX}{name}:{KEYS_FOLDER}/{KEYS_FILE}", "-")
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            inner = packed.extractfile(packed.next() or KEYS_FILE)
            return inner.read().decode() if inner else ""

    async def set_keys(self, name: str, keys: Sequence[str]) -> None:
        """Let these keys in from now on."""
        await self._in(name, "cp", "-", f"{PREFIX}{name}:{KEYS_FOLDER}", stdin=packed_keys(keys))

    async def host_key(self, name: str) -> str:
        """Return the public key by which clients know the host, or an empty text."""
        try:
            return (await self.run("exec", PREFIX + name, "cat", HOST_KEY)).decode().strip()
        except Failed:
            return ""

    async def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run podman to its end, also when we are cancelled meanwhile, and return what it prints.

        Raises:
            Failed: it exits with another code than 0.
            HostsAway: it takes longer than COMMAND_SECONDS.
        """
        code, out, err = await to_the_end(self._execute(arguments, stdin))
        if code != 0:
            what = " ".join(word for word in arguments[:2] if word.isalpha())
            raise Failed(f"podman {what} failed: {_said(err) or f'exit code {code}'}")
        return out

    async def remove(self, name: str, kinds: Sequence[Kind]) -> None:
        """Remove what there is of a host; all is tried, and what fails is told at the end.

        Raises:
            Failed: something is left.
        """
        failures = []
        for kind in sorted(kinds, key=KINDS.index):
            # Not to force it with the others: that would take containers along.
            options = ["--force", f"--time={STOP_SECONDS}"] if kind == "container" else []
            try:
                await self.run(kind, "rm", *options, PREFIX + name)
            except Failed as error:
                if await self._exists(kind, PREFIX + name):
                    failures.append(str(error))
        if failures:
            raise Failed(f"something of the host {name} is left: {'; '.join(failures)}")

    async def _in(self, name: str, *arguments: str, stdin: bytes = b"") -> bytes:
        if not await self._exists("container", PREFIX + name):
            raise NoSuchHost(f"there is no host {name}")
        return await self.run(*arguments, stdin=stdin)

    async def _exists(self, kind: Kind | Literal["image"], name: str) -> bool:
        code, _, err = await to_the_end(self._execute((kind, "exists", name), b""))
        if code > 1:
            raise Failed(f"podman {kind} exists failed: {_said(err)}")
        return code == 0

    def _find(self) -> str:
        found = shutil.which(self._program)
        if found is None:
            raise HostsUnusable(f"there is no {self._program} on the PATH: install it, or set ISOTHERM_HOSTS=kubernetes")
        return found

    async def _execute(self, arguments: Sequence[str], stdin: bytes) -> tuple[int, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            self._find(),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: what podman has begun it ends, and we undo it
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate(stdin)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise HostsAway(f"podman {arguments[0]} has not ended after {COMMAND_SECONDS:.0f} s") from error
        assert process.returncode is not None
        return process.returncode, out, err

    async def _survey(self, chosen: str) -> list[Host]:
        found = await self._things(chosen)
        return list(await asyncio.gather(*(_host(name, found[name]) for name in sorted(found))))

    async def _things(self, chosen: str) -> dict[str, _Things]:
        """Return what there is of each host that a filter chooses."""
        volumes, networks, containers = await asyncio.gather(
            self._listed("volume", "ls", f"--filter={chosen}"),
            self._listed("network", "ls", f"--filter={chosen}"),
            self._listed("ps", "--all", f"--filter={chosen}"),
        )
        names = volumes.keys() | networks.keys() | containers.keys()
        return {name: _Things(volumes.get(name), networks.get(name), containers.get(name)) for name in names}

    async def _listed(self, *arguments: str) -> dict[str, _Listed]:
        rows = msgspec.json.decode(await self.run(*arguments, "--format=json") or b"[]", type=list[dict[str, Any]])
        # Networks are listed with names in lower case, the others with capitals.
        found = [msgspec.convert({key.lower(): value for key, value in row.items()}, _Listed) for row in rows]
        return {one.labels[HOST]: one for one in found}


class _Creation:
    """One host being made: remembers what it has made, and removes that when it does not come to its end."""

    def __init__(self, podman: Podman, spec: Spec, image: str, pool: IPv4Network) -> None:
        self._podman = podman
        self._spec = spec
        self._image = image
        self._pool = pool
        self._name = PREFIX + spec.name
        self._made: list[Kind] = []
        self._labels = {HOST: spec.name, QUOTA: "project"} | {
            f"{HOST}.{field}": str(value) for field, value in msgspec.structs.asdict(Label.of(spec)).items()
        }

    async def run(self) -> bool:
        """Make it; returns whether its volume was there."""
        try:
            await self._claim()
            there = await self._podman.things(self._spec.name)
            check_volume(self._spec, there)
            if there.volume is None:
                await self._make_volume()
            if there.volume is not None:
                self._labels[QUOTA] = there.volume.labels[QUOTA]
            await self._make("container", *self._options(), self._image)
            await self._podman.run("cp", "-", f"{self._name}:{KEYS_FOLDER}", stdin=packed_keys(self._spec.keys))
            await self._podman.run("container", "start", self._name)
        except BaseException as error:
            await to_the_end(self._undo(error))
            raise
        return there.volume is not None

    async def _undo(self, error: BaseException) -> None:
        try:
            await self._podman.remove(self._spec.name, self._made)
        except HostsAway as left:
            error.add_note(str(left))
            log.error("%s", left)

    async def _make(self, kind: Kind, *options: str) -> None:
        self._made.append(kind)
        try:
            await self._podman.run(
                kind, "create", *(f"--label={key}={value}" for key, value in self._labels.items()), *options
            )
        except Failed:
            self._made.remove(kind)
            raise

    async def _claim(self) -> None:
        """Make the network, in the first place of the pool that nobody has, and so have the name."""
        listed = msgspec.json.decode(await self._podman.run("network", "ls", "--format=json"), type=list[_Network])
        used = [IPv4Network(one.subnet) for network in listed for one in network.subnets if ":" not in one.subnet]
        for subnet in self._pool.subnets(new_prefix=HOST_PREFIX):
            if any(subnet.overlaps(one) for one in used):
                continue
            self._labels[ADDRESS] = str(subnet[FIRST_ADDRESS])
            try:
                await self._make("network", "--disable-dns", "--opt=isolate=true", f"--subnet={subnet}", self._name)
            except Failed as error:
                if f"subnet {subnet}" in str(error):
                    continue  # somebody has just taken it, or it is one of the machine's own
                if "already" not in str(error):
                    raise
                raise HostTaken(f"a host {self._spec.name} is being created already; choose another name") from error
            return
        raise HostsUnusable(f"there is no room for another host in {self._pool}: set ISOTHERM_HOSTS_NETWORK to a larger one")

    async def _make_volume(self) -> None:
        try:
            await self._make("volume", f"--opt=o=size={self._spec.disk}", self._name)
        except Failed as error:
            if "quota" not in str(error).lower():
                raise
            self._labels[QUOTA] = "none"
            await self._make("volume", self._name)

    def _options(self) -> list[str]:
        spec, name = self._spec, self._name
        return [
            f"--name={name}",
            f"--hostname={spec.name}",
            f"--network={name}",
            f"--ip={self._labels[ADDRESS]}",
            f"--volume={name}:/home",
            f"--memory={spec.memory}b",
            f"--memory-swap={spec.memory}b",
            f"--cpus={spec.cpus:g}",
            f"--pids-limit={MAX_PROCESSES}",
            "--cap-drop=all",
            f"--cap-add={','.join(CAPABILITIES)}",
            "--restart=always",
            "--pull=never",
        ]


def packed_keys(keys: Sequence[str]) -> bytes:
    """Return the file of keys as an archive (tar), which is what ``podman cp`` takes."""
    text = "".join(f"{key}\n" for key in keys).encode()
    entry = tarfile.TarInfo(KEYS_FILE)
    entry.size, entry.mode = len(text), 0o600
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(text))
    return written.getvalue()


def check_volume(spec: Spec, there: _Things) -> None:
    """See that a volume that was kept, if there is one, is of the same user.

    Raises:
        HostTaken: it is another's.
    """
    if there.volume and (owner := _label(there.volume).user) != spec.user:
        raise HostTaken(
            f"{owner} has kept the volume of a host {spec.name}; choose another name, or `isotherm hosts delete {spec.name}`"
        )


async def _host(name: str, there: _Things) -> Host:
    if there.container is None:
        if there.network is None and there.volume is not None:
            return _label(there.volume).host(name, "kept")
        newest = there.network or there.volume
        assert newest is not None
        return _label(newest).host(name, "incomplete", detail=CUT_OFF)
    label, labels = _label(there.container), there.container.labels
    address = labels.get(ADDRESS, "")
    state = _STATES.get(there.container.state, "stopped")
    if state == "starting" and await answers(address):
        state = "running"
    detail = {"stopped": there.container.status, "incomplete": CUT_OFF}.get(
        state, NO_QUOTA if labels[QUOTA] == "none" else ""
    )
    return label.host(name, state, address=address, image=there.container.image, detail=detail)


def _label(listed: _Listed) -> Label:
    fields = {field: listed.labels[f"{HOST}.{field}"] for field in Label.__struct_fields__}
    return msgspec.convert(fields, Label, strict=False)


def _said(err: bytes) -> str:
    """Return why podman says that it has failed: not every line after that is about it."""
    lines = err.decode(errors="replace").strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1] if lines else "")[
        :400
    ].removeprefix("Error: ")
