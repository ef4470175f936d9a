"""What every connector promises, whatever it speaks. A test class inherits this and says how to send one payload."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from tests.support.stack import Stack

DEVICE = "contract"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender was told.

    Attributes:
        accepted: Whether everything was; None when the protocol cannot say.
        text: The explanation.
    """

    accepted: bool | None
    text: str


class ConnectorContract(ABC):
    """The promises."""

    protocol: ClassVar[str]
    device_in_channel: ClassVar[bool]
    """Whether the channel names the device, so that no reading can lack one."""

    @abstractmethod
    async def send(self, stack: Stack, payload: bytes, tool: Callable[..., str]) -> Answer:
        """Send one payload as a device would, and return what it is told."""

    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
        with Stack(tmp_path_factory.mktemp("stack"), "--no-simulator") as stack:
            yield stack

    def line(self, stack: Stack) -> dict[str, Any]:
        line: dict[str, Any] = stack.json("ledger")["connectors"].get(
            self.protocol, {"accepted": 0, "stored": 0, "reasons": {}}
        )
        return line

    async def until(self, stack: Stack, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while not condition(line := await asyncio.to_thread(self.line, stack)):
            assert time.monotonic() < deadline, line
        return line

    async def test_what_is_acknowledged_is_stored(self, stack: Stack, tool: Callable[..., str]) -> None:
        before = self.line(stack)["stored"]
        payload = b'[{"bn":"contract/","n":"a","u":"Cel","v":1},{"n":"b","v":2},{"n":"b","v":3}]'
        answer = await self.send(stack, payload, tool)
        assert answer.accepted in (True, None)
        await self.until(stack, lambda line: bool(line["stored"] == before + 3))
        values = {row["metric"]: row["value"] for row in stack.json("devices") if row["device"] == DEVICE}
        assert values == {"a": 1, "b": 3}

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"junk", "malformed"),
            (b"\xff\xfe\x00", "malformed"),
            (b'[{"n":"contract/t","v":"x"}]', "type"),
            (b'[{"n":"contract/t","v":1,"t":99999999999}]', "time"),
            (b'[{"n":"contract/t"}]', "no_value"),
            (b'[{"n":"contract/t","v":1,"seq":-1}]', "seq"),
            (b'[{"n":"contract/<b>","v":1}]', "name"),
            (b'[{"n":"contract/t","v":1,"critical_":1}]', "unknown_field"),
        ],
    )
    async def test_bad_input_is_refused_counted_and_kept(
        self, stack: Stack, tool: Callable[..., str], payload: bytes, reason: str
    ) -> None:
        before = self.line(stack)["reasons"].get(reason, 0)
        answer = await self.send(stack, payload, tool)
        assert answer.accepted in (False, None)
        if answer.accepted is False:
            assert reason in answer.text
        await self.until(stack, lambda line: bool(line["reasons"].get(reason, 0) == before + 1))
        kept = [
            json.loads(line)
            for line in stack.run("tail", "rejects", "--last", "1000", "--no-follow", "--json").stdout.splitlines()
        ]
        assert [one for one in kept if one["reason"] == reason and one["protocol"] == self.protocol]

    async def test_a_string_value_becomes_an_attribute(self, stack: Stack, tool: Callable[..., str]) -> None:
        before = self.line(stack)["stored"]
        answer = await self.send(stack, b'[{"n":"contract/firmware","vs":"1.2"}]', tool)
        assert answer.accepted in (True, None)
        await self.until(stack, lambda line: bool(line["stored"] == before + 1))
        assert stack.json("devices", "show", DEVICE)["attributes"]["firmware"]["value"] == "1.2"

    async def test_a_good_reading_beside_a_bad_one_is_kept(self, stack: Stack, tool: Callable[..., str]) -> None:
        before = self.line(stack)["stored"]
        answer = await self.send(
            stack, b'[{"n":"contract/x","v":1},{"n":"contract/x","v":"bad"},{"n":"contract/x","v":2}]', tool
        )
        assert answer.accepted in (False, None)
        await self.until(stack, lambda line: bool(line["stored"] == before + 2))

    async def test_a_reading_without_a_device_belongs_to_the_channels_device_or_is_refused(
        self, stack: Stack, tool: Callable[..., str]
    ) -> None:
        before = self.line(stack)
        await self.send(stack, b'[{"n":"bare","v":1}]', tool)
        if self.device_in_channel:
            await self.until(stack, lambda line: bool(line["stored"] == before["stored"] + 1))
        else:
            await self.until(stack, lambda line: "no_device" in line["reasons"])

    async def test_the_log_stays_free_of_errors(self, stack: Stack) -> None:
        assert [line for line in stack.complaints(self.protocol) if " WARNING " not in line] == []
