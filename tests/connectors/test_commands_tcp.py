"""Commands over TCP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest

from connectors import tcp
from tests.connectors.test_tcp import Peer
from tests.contracts.commands import CommandContract, Conversation, Device
from tests.support.intake import Bench, HeldReplies

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]


class TestTcp(CommandContract):
    """The contract."""

    @asynccontextmanager
    async def listening(self, bench: Bench) -> AsyncIterator[Callable[[str], AbstractAsyncContextManager[Device]]]:
        async with tcp.listening(bench.site) as where:
            port = int(re.findall(r":(\d+)", where)[0])

            @asynccontextmanager
            async def come(name: str) -> AsyncIterator[Device]:
                peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
                await say(peer, {"hello": {"device": name, "ack": True, "commands": True}})
                yield Conversation(partial(say, peer), peer.hear)
                peer.writer.close()

            yield come

    async def test_a_device_reports_in_the_packet_of_its_hello(self, bench: Bench) -> None:
        async with tcp.listening(bench.site) as where:
            port = int(re.findall(r":(\d+)", where)[0])
            peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
            hello = {"hello": {"device": "lamp", "ack": True, "commands": True}}
            report = {"reply": {"id": "configuration-0", "result": {"interval": 1}}}
            await peer.say(b"".join(json.dumps(one).encode() + b"\n" for one in (hello, report)))
            assert await peer.hear() == {"replied": "configuration-0"}
            peer.writer.close()

    async def test_a_reply_that_is_refused_is_no_reading_that_was(self, bench: Bench) -> None:
        async with self.listening(bench) as come, come("room-1") as device:
            assert isinstance(device, Conversation)
            await device.say({"reply": {"id": "nothing", "result": 1}})
            refused = await device.hear()
            assert (refused["error"]["reason"], refused["error"]["count"]) == ("command", 0)
            await device.say({"n": "t", "v": 1})
            assert await device.hear() == {"ack": 1}

    async def test_a_flood_of_replies_waits_unread(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        replies = HeldReplies()

        monkeypatch.setattr(bench.dispatcher, "reply", replies)
        async with tcp.listening(bench.site) as where:
            peer = Peer(*await asyncio.open_connection("127.0.0.1", int(re.findall(r":(\d+)", where)[0])))
            await say(peer, {"hello": {"device": "lamp", "ack": True, "commands": True}})
            line, count = b'{"reply":{"id":"x","result":"%s"}}\n' % (b"x" * 10_000), 0
            with pytest.raises(TimeoutError):  # the socket's buffers fill up: the device is told by not being read
                async with asyncio.timeout(1):
                    while True:
                        count += 50
                        await peer.say(line * 50)
            assert 0 < replies.begun <= tcp.MAX_REPLYING
            replies.may_go.set()
            for _ in range(count):
                assert await peer.hear() == {"replied": "x"}
            peer.writer.close()


async def say(peer: Peer, what: object) -> None:
    """Send a line."""
    await peer.say(json.dumps(what).encode() + b"\n")
