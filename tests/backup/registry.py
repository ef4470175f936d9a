"""A store with something in every family of keys, filled as the platform fills it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
from argon2 import PasswordHasher
from redis import Redis

from agents.downsample import downsample
from isotherm.accounts.accounts import Accounts, Actor
from isotherm.accounts.passwords import Passwords
from isotherm.accounts.role import Role
from isotherm.alarms import Alarms
from isotherm.alarms.row import ENGINE, AlarmRow
from isotherm.analytics import Analytics, Entry, Status
from isotherm.backup.families import family_of
from isotherm.channels import Channel, Channels, Webhook
from isotherm.clock import now_us
from isotherm.configuration import Rollouts
from isotherm.configuration.rollout import Targets
from isotherm.firmware import Firmware, signing
from isotherm.limits import HOUR, SECOND
from isotherm.pack import Attribute
from isotherm.registry import Registry
from isotherm.rules import Rule, Rules
from isotherm.store.analytic import AnalyticStore, Commit
from isotherm.store.client import Client
from isotherm.store.writer import Progress, Writer
from isotherm.topics import partition_of
from tests.contracts.store import pack

PARTITIONS = 8
ADA = Actor("ada", "192.0.2.1", "a browser")
DEVICES = ("gateway", "kitchen", "lamp-1", "lamp-2")
IMAGE = bytes(range(256)) * 100
PASSWORDS = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class Known:
    """What only those know to whom it was told."""

    device_token: str
    api_token: str
    session: str


async def fill(redis: Client) -> Known:
    """Enter a bit of everything, and readings as well."""
    registry = Registry(redis)
    await registry.add("gateway", is_gateway=True)
    await registry.add("kitchen", gateway="gateway", type="lamp")
    for device in DEVICES[2:]:
        await registry.add(device)
        await registry.label(device, add=["floor=2", "vip"])
    known = Known(await registry.new_token("gateway"), "", "")
    await _people(redis, known)
    await Rules(redis).add(Rule(id="hot", kind="threshold", metric="t", above=30.0))
    await Channels(redis).put(Channel(id="ops", to=Webhook("https://ops.example/hook", secret="swordfish")))
    await Analytics(redis).put(Entry("dew_point", "dew_point", parameters={"unit": "Cel"}))
    await Analytics(redis).report(Status("dew_point", "host/1", "running", now_us()))
    key, firmware = signing.new_key(), Firmware(redis)
    await firmware.trust(signing.public_of(key))
    await firmware.add(signing.signed(key, "lamp", "1.2.0", IMAGE), IMAGE, "eve")
    rollouts = Rollouts(redis, PARTITIONS)
    await rollouts.configurations.change("kitchen", {"interval": 5}, "eve")
    await rollouts.configurations.report("kitchen", 1, b'{"interval":5}')
    await rollouts.begin(Targets(label="vip"), {"calibration": 0.5}, "eve")
    await rollouts.begin(Targets(label="attic"), {"calibration": 0.5}, "eve", continuous=True)
    halted = await rollouts.begin(Targets(label="cellar"), {"calibration": 0.5}, "eve", continuous=True)
    await rollouts.halt(halted.id, "halted by eve")
    await _readings(redis)
    await _alarms(redis)
    return known


async def _people(redis: Client, known: Known) -> None:
    accounts = Accounts(redis, PASSWORDS)
    await accounts.create("ada", Role.ADMIN, ADA)
    await accounts.create("vera", Role.VIEWER, ADA)
    known.api_token, _ = await accounts.create_token("ada", "scripts \N{SNOWMAN}", ["read"], 30, ADA)
    known.session = await accounts.begin("ada", ADA)
    await accounts.link("invite", "viewer", ADA)
    await accounts.tokens.lend("cli", ["read"], 600)
    await accounts.audit.refuse("mallory", "log in", address="192.0.2.66")


async def _readings(redis: Client) -> None:
    now, partition = now_us(), partition_of("kitchen", PARTITIONS)
    said = Attribute("kitchen/version", now, "1.0 \N{DEGREE SIGN}")
    one = replace(pack([now], [21.5], received_at=now), names=["kitchen/t"], units={"kitchen/t": "Cel"}, attributes=[said])
    writer = Writer(redis, "downsample", "log")
    assert await writer.commit(partition, downsample([one]), expected=None, next_offset=1) is None


async def _alarms(redis: Client) -> None:
    partition = partition_of("kitchen", PARTITIONS)
    row = AlarmRow(rule="hot", kind="threshold", device="kitchen", metric="t", since=now_us() - HOUR, times=1, value=31.0)
    rows = {row.key: msgspec.msgpack.encode(row), "newest:kitchen/t": b"\xff\x00\x80"}
    commit = Commit(Progress(7, "mark"), [], 1, rows, [], {"kitchen/t": 3}, [b"{}"])
    store = AnalyticStore(redis, ENGINE, "log")
    await store.load(partition)
    assert await store.commit(partition, commit, expected="", version="1")
    alarms = Alarms(redis, PARTITIONS)
    await alarms.acknowledge(row.key, row.since, "ada", "on my way")
    await alarms.shelve("hot", now_us() + 3600 * SECOND, "ada")


def everything(port: int) -> dict[str, tuple[Any, int]]:
    """Return all keys of a server with what they hold, and when they expire, read in another way than a backup does."""
    with Redis(port=port) as redis:
        return {key.decode(): (_held(redis, key), int(redis.pexpiretime(key))) for key in redis.keys("*")}


def _held(redis: Any, key: bytes) -> Any:
    match redis.type(key).decode():
        case "string":
            return redis.get(key)
        case "hash":
            return redis.hgetall(key)
        case "set":
            return redis.smembers(key)
        case "zset":
            return sorted(redis.zrange(key, 0, -1, withscores=True))
        case "stream":
            return redis.xrange(key)
        case other:
            raise AssertionError(f"{key!r} is a {other}")


def registry_of(port: int) -> dict[str, tuple[Any, int]]:
    """Return what of it is the registry, without what a restore changes: versions, and its own entry in the audit log."""
    found = {}
    for key, (held, expires) in everything(port).items():
        family = family_of(key.encode())
        if family is None or family.is_version or (family.has and family.has.encode() not in held):
            continue
        if family.type == "stream":
            held = [entry for entry in held if entry[1].get(b"what") != b"restore registry"]
        found[key] = (held, expires)
    return found
