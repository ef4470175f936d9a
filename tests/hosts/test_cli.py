"""``isotherm hosts``: hosts that are made on the command line, and entered with a real ssh."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from isotherm.cli import main
from isotherm.hosts.podman import PREFIX
from isotherm.settings import Settings
from tests.dashboards.people import add_viewer
from tests.hosts.podman import POOL, PodmanThatWaits, parts_of, remove
from tests.support import images
from tests.support.ports import free_port
from tests.support.stack import ISOTHERM
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

SUITE = f"t{os.getpid()}"
"""Begins the names of hosts, so that other runs on this machine have others."""

REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print('reached')"


class Said(NamedTuple):
    """What a command has printed."""

    returncode: int
    stdout: str
    stderr: str


class Desk:
    """Somebody with a key and a command line."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.known = folder / "known_hosts"
        self.environment = os.environ | settings.environment()
        self.key = self.new_key("mine")

    def new_key(self, name: str) -> Path:
        """Make a key; returns its private half."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)], check=True)
        return self.folder / name

    def isotherm(self, *arguments: str, **settings: str) -> Said:
        """Run a command of ``isotherm hosts``, as `python -m isotherm` does it, in this process."""
        out, err = io.StringIO(), io.StringIO()
        environment = self.environment | {f"ISOTHERM_{name.upper()}": value for name, value in settings.items()}
        with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open() as nothing:
            patch.setattr(sys, "argv", ["isotherm", "hosts", *arguments])
            patch.setattr(sys, "stdin", nothing)
            patch.chdir(self.folder)
            for name, value in environment.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as end:
                    return Said(int(end.code or 0), out.getvalue(), err.getvalue())
        return Said(0, out.getvalue(), err.getvalue())

    def create(self, name: str) -> Host:
        """Make a host of ada's that the key lets in, and know its key from then on."""
        made = self.isotherm("create", name, "--key", f"{self.key}.pub", "--user", "ada", "--memory", "512Mi", "--json")
        assert made.returncode == 0, made.stderr
        answer = json.loads(made.stdout)
        with self.known.open("a") as known:
            known.write(f"{answer['address']} {answer['host_key']}\n")
        return Host(self, name, answer["address"])


class Host:
    """A host that one enters."""

    def __init__(self, desk: Desk, name: str, address: str) -> None:
        self.desk = desk
        self.name = name
        self.address = address

    def ssh(self, *command: str, login: str = "user", key: Path | None = None, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command that does something in it."""
        strict = (
            f"UserKnownHostsFile={self.desk.known}",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
        )
        return [
            *("ssh", "-F", "none", "-i", str(key or self.desk.key), *(f"-o{one}" for one in strict), *options),
            *(f"{login}@{self.address}", *command),
        ]

    def run(self, *command: str, stdin: str = "", **options: object) -> subprocess.CompletedProcess[str]:
        """Do something in it."""
        line = self.ssh(*command, **options)  # type: ignore[arg-type]
        return subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def desk(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("hosts")
    with Valkey(folder / "valkey") as valkey:
        settings = Settings(data_dir=folder, redis=valkey.url, hosts="podman", hosts_image=image, hosts_network=POOL)
        asyncio.run(add_viewer(settings, "ada"))
        yield Desk(folder, settings)


@pytest.fixture(scope="module")
def make(desk: Desk) -> Iterator[Callable[[str], Host]]:
    """Makes hosts that are gone after the tests."""
    made = []

    def create(name: str) -> Host:
        made.append(f"{SUITE}-{name}")
        return desk.create(made[-1])

    yield create
    for name in made:
        remove(name)


@pytest.fixture(scope="module")
def host(make: Callable[[str], Host]) -> Host:
    return make("one")


@pytest.fixture(scope="module")
def neighbour(make: Callable[[str], Host]) -> Host:
    return make("two")


def test_its_user_comes_in_with_the_key_and_may_become_root(host: Host) -> None:
    done = host.run("id -un; hostname; sudo id -un; pwd")
    assert done.stdout.split() == ["user", host.name, "root", "/home/user"], done.stderr


def test_a_file_its_address_and_the_key_that_ssh_knows_outlive_a_restart(host: Host) -> None:
    assert host.run("cat >kept", stdin="21.5").returncode == 0
    images.podman("container", "restart", "--time=3", PREFIX + host.name)
    listening = "until timeout 1 ssh-keyscan -t ed25519 $0 2>/dev/null | grep -q .; do :; done"
    subprocess.run(["sh", "-c", listening, host.address], timeout=60, check=True)
    assert host.run("cat kept").stdout == "21.5"


@pytest.mark.parametrize("login", ["root", "nobody"])
def test_nobody_else_comes_in(host: Host, login: str) -> None:
    done = host.run("true", login=login)
    assert (done.returncode, f"{login}@{host.address}: Permission denied (publickey)." in done.stderr) == (255, True), (
        done.stderr
    )


def test_no_password_is_asked_for(host: Host, desk: Desk) -> None:
    stranger = desk.folder / "stranger"
    key = stranger if stranger.exists() else desk.new_key("stranger")
    done = host.run("true", key=key, options=("-oPreferredAuthentications=password,keyboard-interactive,publickey", "-v"))
    assert done.returncode == 255
    offered = set(re.findall(r"Authentications that can continue: (\S+)", done.stderr))
    assert offered == {"publickey"}


def test_one_host_does_not_reach_another(host: Host, neighbour: Host) -> None:
    assert neighbour.run("true").returncode == 0
    assert host.run("python3", "-", host.address, "22", stdin=REACH).stdout == "reached\n"
    done = host.run("python3", "-", neighbour.address, "22", stdin=REACH)
    assert (done.stdout, "No route to host" in done.stderr) == ("", True), done.stderr


def test_that_holds_when_another_one_is_removed(
    host: Host, neighbour: Host, make: Callable[[str], Host], desk: Desk
) -> None:
    passing = make("passing")
    assert desk.isotherm("delete", passing.name, "--yes").returncode == 0
    assert "No route to host" in host.run("python3", "-", neighbour.address, "22", stdin=REACH).stderr


def test_all_its_ports_are_reached_at_its_address(host: Host) -> None:
    port = free_port()
    serving = subprocess.Popen(
        host.ssh(f"echo hello >page; exec python3 -u -m http.server {port} 2>&1", options=("-tt",)),
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        while "Serving HTTP" not in serving.stdout.readline():
            assert serving.poll() is None
        with urllib.request.urlopen(f"http://{host.address}:{port}/page", timeout=20) as page:
            assert page.read() == b"hello\n"
    finally:
        serving.terminate()
        serving.wait()


def test_its_desktop_is_there_through_the_tunnel_and_not_without(host: Host) -> None:
    tunnel = subprocess.Popen(
        host.ssh(options=("-W", "localhost:5901")), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert tunnel.stdout is not None
        assert tunnel.stdout.read(12) == b"RFB 003.008\n"  # RFC 6143 §7.1.1
    finally:
        tunnel.terminate()
        tunnel.wait()
    refused = host.run("python3", "-", host.address, "5901", stdin=REACH)
    assert "ConnectionRefusedError" in refused.stderr


def test_its_memory_is_bounded(host: Host) -> None:
    shown = host.run("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null").stdout
    assert shown.split() == [str(512 << 20)]


def test_keys_are_replaced_at_once(make: Callable[[str], Host], desk: Desk) -> None:
    host = make("keys")
    other = desk.new_key("other")
    added = desk.isotherm("key", host.name, "--add", f"{other}.pub", "--json")
    assert len(json.loads(added.stdout)["keys"]) == 2
    assert host.run("true", key=other).returncode == host.run("true").returncode == 0
    assert desk.isotherm("key", host.name, "--key", f"{other}.pub").stdout == other.with_suffix(".pub").read_text()
    assert host.run("true", key=other).returncode == 0
    assert "Permission denied (publickey)" in host.run("true").stderr


def test_hosts_are_listed_and_shown(host: Host, desk: Desk) -> None:
    listed = {one["name"]: one for one in json.loads(desk.isotherm("list", "--json").stdout)}
    assert listed[host.name]["state"] == "running"
    assert listed[host.name]["ssh"] == f"ssh user@{host.address}"
    shown = desk.isotherm("show", host.name)
    assert f"enter it: ssh user@{host.address}" in shown.stdout
    assert shown.stdout.count("SHA256:") == 2


def test_a_home_that_was_kept_is_that_of_the_next_host(make: Callable[[str], Host], desk: Desk) -> None:
    host = make("kept")
    host.run("cat >mine", stdin="22.5")
    assert "its volume is kept" in desk.isotherm("delete", host.name, "--yes", "--keep-volume").stdout
    assert parts_of(host.name) == ["volume"]
    again = desk.create(host.name)
    assert again.run("cat mine").stdout == "22.5"


def test_nothing_is_left_of_one_that_is_deleted(make: Callable[[str], Host], desk: Desk) -> None:
    host = make("gone")
    assert parts_of(host.name) == ["container", "volume", "network"]
    assert desk.isotherm("delete", host.name, "--yes", "--json").returncode == 0
    assert parts_of(host.name) == []


def test_it_asks_before_it_deletes(host: Host, desk: Desk) -> None:
    refused = desk.isotherm("delete", host.name)
    assert (refused.returncode, "say --yes" in refused.stderr) == (1, True)
    assert parts_of(host.name) == ["container", "volume", "network"]


@pytest.mark.parametrize(("step", "number"), [("container create", signal.SIGINT), ("container start", signal.SIGTERM)])
def test_a_creation_that_is_interrupted_leaves_nothing(
    desk: Desk, step: str, number: signal.Signals, tmp_path: Path
) -> None:
    name = f"{SUITE}-cut"
    program = PodmanThatWaits(tmp_path, step)
    creating = subprocess.Popen(
        [*ISOTHERM, "hosts", "create", name, "--key", f"{desk.key}.pub", "--user", "ada"],
        env=desk.environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=desk.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    program.until_it_waits()
    os.killpg(creating.pid, number)  # as a terminal does: also what podman has begun would hear of it
    program.go_on()
    _, said = creating.communicate(timeout=60)
    assert creating.returncode != 0
    assert b"interrupted; nothing is left of it" in said
    assert b"Traceback" not in said
    assert parts_of(name) == []


def test_one_whose_ssh_does_not_answer_in_time_is_not_left_behind(desk: Desk) -> None:
    base = images.debian_base()
    name = f"{SUITE}-mute"
    failed = desk.isotherm(
        *("create", name, "--key", f"{desk.key}.pub", "--user", "ada", "--within", "1s"),
        hosts_image=_mute(base),
    )
    assert failed.returncode == 1
    assert "has not answered within 1 s" in failed.stderr
    assert parts_of(name) == []


def _mute(base: str) -> str:
    """Return an image that runs, and in which nothing answers."""
    folder = Path(__file__).with_name("mute")
    return images.built("mute", folder, arguments={"BASE": base})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "{host}", "--key", "mine.pub", "--user", "ada"), "there is a host {host} already; choose another name"),
        (("create", "Upper", "--key", "mine.pub", "--user", "ada"), "'Upper' is no name of a host, expected 1 to 32 of a-z"),
        (("create", "new", "--key", "mine.pub", "--user", "bob"), "there is no user 'bob'"),
        (("create", "new", "--key", "mine", "--user", "ada"), "mine: line 1 begins a private key"),
        (("create", "new", "--key", "none.pub", "--user", "ada"), "the key file none.pub cannot be read: No such file"),
        (("create", "new", "--key", "known_hosts", "--user", "ada"), "known_hosts: line 1 begins with '"),
        (
            ("create", "new", "--key", "mine.pub", "--user", "ada", "--memory", "512"),
            "memory is '512', expected a number with Mi",
        ),
        (("create", "new", "--key", "mine.pub", "--user", "ada", "--memory", "1Mi"), "memory is 1Mi, expected 256Mi to 1Ti"),
        (("create", "new", "--key", "mine.pub", "--user", "ada", "--cpus", "0"), "cpus is 0, expected 0.1 to 64"),
        (("delete", "none", "--yes"), "there is no host 'none'; try: isotherm hosts list"),
        (("key", "none"), "there is no host 'none'"),
        (("show", "../etc"), "there is no host '../etc'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_told_in_a_line_and_nothing_is_changed(
    host: Host, desk: Desk, arguments: tuple[str, ...], said: str
) -> None:
    failed = desk.isotherm(*(one.format(host=host.name) for one in arguments))
    assert failed.returncode == 1
    assert said.format(host=host.name) in failed.stderr
    assert "Traceback" not in failed.stderr
    assert parts_of("new") == []


def test_an_image_that_is_missing_is_told_with_how_to_build_it(desk: Desk) -> None:
    failed = desk.isotherm(*("create", "new", "--key", "mine.pub", "--user", "ada"), hosts_image="localhost/none:1")
    assert (failed.returncode, "build it by `make host-image`" in failed.stderr) == (1, True)


def test_where_hosts_are_off_it_is_said_how_to_have_them(desk: Desk) -> None:
    failed = desk.isotherm("list", hosts="off")
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        "isotherm: virtual hosts are off: set ISOTHERM_HOSTS to podman (this machine) or kubernetes"
    )
