"""A new kind of key must not be forgotten when the registry is backed up."""

from isotherm.backup.families import family_of, reason_of
from isotherm.store.client import Client


async def check(redis: Client) -> None:
    """See that every key which a test has left is in one of the lists."""
    keys = [key async for key in redis.scan_iter(match="iso:*", count=1_000)]
    unknown = [key for key in keys if family_of(key) is None and reason_of(key) is None]
    assert not unknown, "say in isotherm/backup/families.py whether these are backed up"
