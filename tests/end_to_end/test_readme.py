"""The README's commands do what it says, typed as they stand (but for the ports of this test's own stack)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
FOLLOWS = ("isotherm tail readings", "isotherm tail rejects")
"""Commands that go on until Ctrl-C."""


def commands() -> list[str]:
    texts = "".join((ROOT / page).read_text() for page in ("README.md", "connectors/README.md"))
    blocks = re.findall(r"^```sh\n(.*?)^```", texts, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", ". "))]


def test_every_command_of_the_readme_works(tmp_path: Path, tool: Callable[..., str]) -> None:
    tool("mosquitto_pub")
    tool("coap-client-notls")
    tool("curl")
    tool("make")
    tool("cc")
    found = commands()
    assert len(found) >= 14
    with Stack(tmp_path / "stack", "--no-simulator") as stack:
        environment = {**stack.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        ports = {"7301": stack.ports.tcp, "7302": stack.ports.coap, "7303": stack.ports.mqtt, "7310": stack.ports.http}
        ports["7300"] = stack.ports.web
        ports["7314"] = stack.ports.coap_tcp
        for command in found:
            typed = re.sub(r"\b73[01]\d\b", lambda match: str(ports[match[0]]), command)
            if command.startswith(FOLLOWS):
                typed = f"timeout --signal=INT 3 {typed}"
            if "query" in command:
                stack.ledger_when_settled(4)
            ran = subprocess.run(
                ["bash", "-c", typed], env=environment, capture_output=True, text=True, timeout=240, check=False
            )
            assert ran.returncode in ((0, 124) if command.startswith(FOLLOWS) else (0,)), (typed, ran.stdout, ran.stderr)
            assert "Traceback" not in ran.stderr, typed
        assert {row["device"] for row in stack.json("devices")} >= {"kitchen", "room-001"}
        assert stack.json("ledger")["total"]["rejected"] == 0


def test_the_pages_it_links_to_exist() -> None:
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "connectors/README.md"):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
