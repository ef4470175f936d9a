"""The registry as a user backs it up and restores it, between real stores."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis import Redis

from isotherm.accounts.accounts import Accounts
from isotherm.accounts.sessions import hash_of
from isotherm.backup.families import BACKED_UP, RESTORING, family_of
from isotherm.backup.file import PART_ELEMENTS, VERSION
from isotherm.backup.restore import check, restore
from isotherm.cli import main
from isotherm.firmware import Firmware
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.client import Client
from tests.backup.registry import IMAGE, PARTITIONS, PASSWORDS, Known, everything, fill, registry_of
from tests.support.redis_cluster import RedisCluster
from tests.support.stack import ISOTHERM
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

POLL_SECONDS = 0.005

_Answer = TypeVar("_Answer")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, Valkey]]:
    with Valkey(tmp_path_factory.mktemp("one")) as one, Valkey(tmp_path_factory.mktemp("other")) as other:
        yield one, other


@pytest.fixture(scope="module")
def known(servers: tuple[Valkey, Valkey]) -> Known:
    """Fills the first store, once: no test changes it."""
    return within(servers[0].url, fill)


@pytest.fixture
def full(servers: tuple[Valkey, Valkey], known: Known) -> Valkey:
    return servers[0]


@pytest.fixture
def empty(servers: tuple[Valkey, Valkey]) -> Valkey:
    servers[1].empty()
    return servers[1]


@pytest.fixture
def file(full: Valkey, tmp_path: Path) -> Path:
    """A backup of the full store."""
    path = tmp_path / "registry.jsonl.gz"
    isotherm("backup", str(path), store=full.url)
    return path


def within(url: str, work: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
    async def call() -> _Answer:
        async with client.connected(Settings(redis=url)) as redis:
            return await work(redis)

    return asyncio.run(call())


def isotherm(*arguments: str, store: str, code: int = 0, **settings: str) -> str:
    """Run the command line in this process; returns what it says."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("ISOTHERM_REDIS", store)
        for name, value in settings.items():
            patch.setenv(f"ISOTHERM_{name.upper()}", value)
        patch.setattr("sys.argv", ["isotherm", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    assert int(end.value.code or 0) == code, err.getvalue()
    return out.getvalue() if code == 0 else err.getvalue()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_a_store_is_restored_to_what_it_was(full: Valkey, empty: Valkey, known: Known, tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl.gz"
    made = json.loads(isotherm("backup", str(path), "--json", store=full.url))
    assert made["bytes"] == path.stat().st_size
    assert made["counts"] == {
        "devices": 4,
        "device tokens": 1,
        "rules": 1,
        "channels": 1,
        "analytics": 1,
        "users": 2,
        "API tokens": 1,
        "audit entries": 6,
        "firmware images": 1,
        "firmware keys": 1,
        "rollouts": 3,
        "configurations": 3,
        "rows of alarms": 2,
        "attributes": 1,
    }
    restored = json.loads(isotherm("restore", str(path), "--json", store=empty.url))
    assert (restored["keys"], restored["counts"]) == (made["keys"], made["counts"])
    assert restored["replaced"] is False
    assert registry_of(empty.port) == registry_of(full.port)
    assert "iso:{5}:raw" not in "".join(everything(empty.port))

    async def use(redis: Client) -> None:
        device = await Registry(redis).by_token(known.device_token)
        assert device is not None
        assert (device.name, set(device.children)) == ("gateway", {"kitchen"})
        accounts = Accounts(redis, PASSWORDS)
        found = await accounts.tokens.find(known.api_token)
        assert found is not None
        assert found[0].name == "ada"
        assert await accounts.sessions.find(hash_of(known.session)) is None
        image = await Firmware(redis).get("lamp", "1.2.0")
        assert image is not None
        assert await Firmware(redis).read(image, 0, len(IMAGE)) == IMAGE
        newest = (await accounts.audit.read(1))[0]
        assert (newest.what, newest.target) == ("restore registry", path.name)

    within(empty.url, use)


def test_the_full_store_has_something_in_every_family(full: Valkey) -> None:
    found = {family_of(key.encode()) for key in everything(full.port)}
    assert {family.pattern for family in BACKED_UP if family not in found} == set()


def test_what_ends_with_the_store_and_readings_are_in_no_backup(file: Path) -> None:
    kept = {line["key"] for line in lines_of(file)[1:-1]}
    assert all(family_of(key.encode()) is not None for key in kept)
    tokens = [line for line in lines_of(file)[1:-1] if line["key"].startswith("iso:{accounts}:api-token:")]
    assert len(tokens) == 1, "the one that was lent is not"
    assert tokens[0]["expires"] > time.time() * 1000


def test_a_backup_is_for_its_owner_alone(full: Valkey, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        isotherm("backup", str(tmp_path / "x"), store=full.url)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_that_exists_is_replaced_only_when_that_is_said(full: Valkey, file: Path) -> None:
    before = file.read_bytes()
    assert "exists; --force replaces it" in isotherm("backup", str(file), store=full.url, code=1)
    assert file.read_bytes() == before
    isotherm("backup", str(file), "--force", store=full.url)
    assert lines_of(file)[1:-1] == [json.loads(line) for line in gzip.decompress(before).splitlines()[1:-1]]


def test_the_oldest_backups_in_a_folder_are_removed(full: Valkey, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    left = folder / "isotherm-registry-20200101T000000.000000Z.jsonl.gz.part"
    left.write_text("of one that was killed")
    made = [json.loads(isotherm("backup", f"{folder}/", "--keep", "2", "--json", store=full.url)) for _ in range(4)]
    assert [len(one["removed"]) for one in made] == [0, 0, 1, 1]
    assert {path.name for path in folder.iterdir()} == {"notes.txt", *(Path(one["file"]).name for one in made[2:])}
    isotherm("restore", made[3]["file"], "--replace", store=full.url)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing/"], 1, "missing is no folder: create or mount it first"),
        (["file", "--keep", "3"], 2, "file is no folder; write file/"),
        (["missing/registry.gz"], 1, "missing/registry.gz.part cannot be written: No such file or directory"),
    ],
)
def test_a_place_that_cannot_be_is_named(
    arguments: list[str], code: int, said: str, full: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = " ".join(isotherm("backup", *arguments, store=full.url, code=code).replace("│", " ").split())
    assert said in told
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_a_registry_makes_no_backup_and_pushes_none_out(full: Valkey, empty: Valkey, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    isotherm("backup", str(folder), "--keep", "1", store=full.url)
    kept = list(folder.iterdir())
    assert "no device and no user" in isotherm("backup", str(folder), "--keep", "1", store=empty.url, code=1)
    assert list(folder.iterdir()) == kept


def test_a_registry_that_is_there_is_replaced_only_when_that_is_said(full: Valkey, empty: Valkey, file: Path) -> None:
    async def other(redis: Client) -> None:
        await Registry(redis).add("stranger")
        await Accounts(redis, PASSWORDS).audit.write("eve", "begin")
        await redis.hset("iso:{3}:agent:alarms", mapping={"version": "9", "next": 4})

    within(empty.url, other)
    before = everything(empty.port)
    refused = isotherm("restore", str(file), store=empty.url, code=1)
    assert "has a registry already, with 1 devices and 0 users; nothing was changed; --replace puts" in refused
    assert everything(empty.port) == before

    assert json.loads(isotherm("restore", str(file), "--replace", "--json", store=empty.url))["replaced"] is True
    after = registry_of(empty.port)
    audit, _ = after.pop("iso:{accounts}:audit")
    expected = registry_of(full.port)
    kept, _ = expected.pop("iso:{accounts}:audit")
    assert after == expected
    assert [entry[1][b"what"] for entry in audit if entry not in kept] == [b"begin"]
    assert "iso:{3}:agent:alarms" not in everything(empty.port)


def test_whoever_follows_the_registry_sees_that_it_has_changed(full: Valkey, empty: Valkey, file: Path) -> None:
    version = within(full.url, lambda redis: Registry(redis).version())
    isotherm("restore", str(file), store=empty.url)
    assert within(empty.url, lambda redis: Registry(redis).version()) == version + 1
    within(empty.url, lambda redis: Registry(redis).add("later"))
    isotherm("restore", str(file), "--replace", store=empty.url)
    assert within(empty.url, lambda redis: Registry(redis).version()) == version + 3


def _forged(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[bytes], bytes]:
    """Change lines, and reckon the sum anew."""

    def forge(data: bytes) -> bytes:
        lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
        change(lines)
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines[:-1])
        end = {"records": len(lines) - 2, "sha256": hashlib.sha256(body).hexdigest()}
        return gzip.compress(body + json.dumps(end).encode() + b"\n")

    return forge


def _edited(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data).replace(b'"kitchen"', b'"kitchon"'))


def _line_removed(data: bytes) -> bytes:
    lines = gzip.decompress(data).splitlines(keepends=True)
    return gzip.compress(b"".join(lines[:3] + lines[4:]))


def _without_end(data: bytes) -> bytes:
    return gzip.compress(b"".join(gzip.decompress(data).splitlines(keepends=True)[:-1]))


def _first(tenths: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) * tenths // 10]


def _newer(lines: list[dict[str, Any]]) -> None:
    lines[0].update(version=VERSION + 1, isotherm="9.9", codec="zstd")


def _foreign(lines: list[dict[str, Any]]) -> None:
    lines[1]["key"] = "iso:{accounts}:session:x"


def _mistyped(lines: list[dict[str, Any]]) -> None:
    lines[1].update(type="set", value=["x"])


SPOILED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda data: b"", "is no backup that"),
    "text": (lambda data: b"iso", "is damaged: Not a gzipped file"),
    "another file": (lambda data: gzip.compress(b'{"format":"x"}\n'), "is no backup that `isotherm backup` has written"),
    "a byte changed": (lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:], "is damaged"),
    "text changed": (_edited, "is damaged: its content is not what its end says"),
    "a line removed": (_line_removed, "is damaged: its content is not what its end says"),
    "the end removed": (_without_end, "is damaged: it has no end; it was cut off"),
    "something after the end": (lambda data: data + gzip.compress(b"{}\n"), "is damaged"),
    "a newer format": (_forged(_newer), "has version 2 of the format, made by Isotherm 9.9; this one"),
    "a foreign key": (_forged(_foreign), "'iso:{accounts}:session:x' as a zset, which is no part of a registry"),
    "another type": (_forged(_mistyped), "as a set, which is no part of a registry"),
    **{f"{tenth}0 % of it": (_first(tenth), "is cut off") for tenth in range(1, 10)},
    "all but a byte": (lambda data: data[:-1], "is cut off"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_file_that_is_not_whole_changes_nothing(spoil: str, file: Path, empty: Valkey) -> None:
    change, said = SPOILED[spoil]
    file.write_bytes(change(file.read_bytes()))
    told = isotherm("restore", str(file), store=empty.url, code=1)
    assert told.startswith("isotherm: ")
    assert said in told
    assert told.count("\n") == 1
    assert everything(empty.port) == {}


def test_a_file_of_a_store_with_other_partitions_is_refused_before_the_store_is_touched(file: Path, empty: Valkey) -> None:
    told = isotherm("restore", str(file), store=empty.url, code=1, partitions="4")
    assert "is of a store with 8 partitions, ISOTHERM_PARTITIONS is 4" in told
    assert everything(empty.port) == {}


def test_a_file_that_is_not_there_is_named(empty: Valkey, tmp_path: Path) -> None:
    assert "no.gz cannot be read: No such file" in isotherm("restore", str(tmp_path / "no.gz"), store=empty.url, code=1)


def test_what_has_expired_since_is_not_restored(full: Valkey, empty: Valkey, file: Path) -> None:
    def expire(lines: list[dict[str, Any]]) -> None:
        [token] = [line for line in lines if line.get("key", "").startswith("iso:{accounts}:api-token:")]
        token["expires"] = 1_700_000_000_000

    file.write_bytes(_forged(expire)(file.read_bytes()))
    isotherm("restore", str(file), store=empty.url)
    assert set(registry_of(full.port)) - set(registry_of(empty.port)) == {
        key for key in registry_of(full.port) if key.startswith("iso:{accounts}:api-token:")
    }


def test_a_restore_that_was_killed_is_known_and_can_be_done_again(full: Valkey, empty: Valkey, file: Path) -> None:
    class Killed(BaseException):
        pass

    def die(done: int, total: int) -> None:
        with Redis(port=empty.port) as redis:
            if redis.exists("iso:{registry}:devices"):
                raise Killed

    checked = check(file, PARTITIONS, lambda done, total: None)
    with pytest.raises(Killed):
        within(empty.url, lambda redis: restore(redis, checked, replace=False, advance=die))
    assert RESTORING in everything(empty.port)
    refused = isotherm("backup", str(file.with_name("half.gz")), store=empty.url, code=1)
    assert "a restore into this store has not ended" in refused
    assert "has a registry already" in isotherm("restore", str(file), store=empty.url, code=1)
    isotherm("restore", str(file), "--replace", store=empty.url)
    assert registry_of(empty.port) == registry_of(full.port)
    assert RESTORING not in everything(empty.port)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_backup_that_is_ended_in_the_middle_leaves_no_half_file(
    number: signal.Signals, empty: Valkey, tmp_path: Path
) -> None:
    within(empty.url, lambda redis: Registry(redis).note([f"device-{n}" for n in range(100)]))
    path = tmp_path / "registry.jsonl.gz"
    os.kill(empty.pid, signal.SIGSTOP)
    command = [*ISOTHERM, "backup", str(path)]
    environment = {**os.environ, "ISOTHERM_REDIS": empty.url, "ISOTHERM_DATA_DIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            part, deadline = path.with_name(path.name + ".part"), time.monotonic() + 60
            while not part.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(POLL_SECONDS)
            process.send_signal(number)
            process.communicate(timeout=30)
        finally:
            process.kill()
            os.kill(empty.pid, signal.SIGCONT)
    assert process.returncode != 0
    assert not path.exists()
    assert part.exists() == (number == signal.SIGKILL)
    isotherm("backup", str(path), store=empty.url)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert lines_of(path)[-1]["records"] == 1


def test_large_keys_take_several_lines_and_come_back_whole(empty: Valkey, tmp_path: Path) -> None:
    count = 2 * PART_ELEMENTS + 7
    within(empty.url, lambda redis: Registry(redis).note([f"device-{n:06}" for n in range(count)]))
    path = tmp_path / "registry.jsonl.gz"
    isotherm("backup", str(path), store=empty.url)
    assert [len(line["value"]) for line in lines_of(path)[1:-1]] == [PART_ELEMENTS, PART_ELEMENTS, 7]
    before = registry_of(empty.port)
    empty.empty()
    isotherm("restore", str(path), store=empty.url)
    assert {key: held for key, held in registry_of(empty.port).items() if "accounts" not in key} == before


def test_keys_that_nobody_has_put_into_a_list_are_told(empty: Valkey, tmp_path: Path) -> None:
    within(empty.url, lambda redis: Registry(redis).add("lamp"))
    empty.ask("SET", "iso:{registry}:novelty:x", "1")
    said = subprocess.run(
        [*ISOTHERM, "backup", str(tmp_path / "x.gz")],
        env={**os.environ, "ISOTHERM_REDIS": empty.url, "ISOTHERM_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 keys are unknown to this version and left out, such as iso:{registry}:novelty:x" in said.stderr


def test_it_goes_into_a_cluster_and_out_of_it(
    full: Valkey, file: Path, tool: Callable[[str], str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), tool("redis-server"), 0) as cluster:
        isotherm("restore", str(file), store=cluster.url)
        there = tmp_path / "cluster.jsonl.gz"
        isotherm("backup", str(there), store=cluster.url)

    def comparable(path: Path) -> list[Any]:
        lines = [line for line in lines_of(path)[1:-1] if not line["key"].endswith((":version", ":audit"))]
        return sorted(lines, key=lambda line: line["key"])

    assert comparable(there) == comparable(file)
    assert len(comparable(there)) >= len(BACKED_UP) - 4
