"""Which analytics run, and which have nothing to do."""

from __future__ import annotations

from pathlib import Path

from isotherm.analytics import Analytics
from isotherm.channels import Channel, Channels
from isotherm.rules import Rule, Rules
from isotherm.settings import Settings
from isotherm.store import client
from tests.support.notifications import NOWHERE
from tests.support.valkey import Valkey


async def test_alarms_wait_for_the_first_rule_and_notifications_for_the_first_channel(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        async with client.connected(Settings(redis=server.url)) as redis:
            analytics = Analytics(redis)
            assert set(await analytics.idle()) == {"alarms", "notifications"}
            await Rules(redis).add(Rule(id="hot", kind="threshold", metric="t", above=30.0))
            assert set(await analytics.idle()) == {"notifications"}
            await Rules(redis).remove("hot")  # its alarms have to be cleared
            await Channels(redis).put(Channel(id="ops", to=NOWHERE))
            assert await analytics.idle() == {}
