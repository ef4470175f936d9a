"""The API is as its OpenAPI description says, whatever is sent: schemathesis over all of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from isotherm.accounts.accounts import Actor
from isotherm.settings import Settings
from tests.api.broker import kafka as kafka
from tests.dashboards.stack import Web
from tests.dashboards.test_access import kernel

pytestmark = pytest.mark.servers

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXAMPLES = int(os.environ.get("ISOTHERM_EXAMPLES", "15"))
"""Of each operation; more of them: ISOTHERM_EXAMPLES=500."""

CONFIGURATION = """\
[parameters]
wait = 0
seconds = 0

[[operations]]
include-path = "/tokens/{id}"
parameters = { id = "0123456789abcdef" }

[[operations]]
include-path = "/users/{name}"
parameters = { name = "bert" }

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 400, 403, 404, 409, 412, 422, 429, 503]
"""
"""Nothing that could be waited for comes, and nobody takes away the user or the token that all of it is asked with. What is
valid by the schema may be refused by rules that no schema tells: whose signature is trusted (422), and that an address has
no control characters (400)."""


async def token(settings: Settings) -> str:
    async with kernel(settings) as accounts:
        made, _ = await accounts.create_token("anna", "schemathesis", ["read", "write"], 1, Actor("test", "cli"))
        return made


def test_schemathesis_finds_nothing(settings: Settings, web: Web, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    shown = {"Authorization": f"Bearer {asyncio.run(token(settings))}"}
    command = [
        *(
            str(SCHEMATHESIS),
            "--config-file",
            str(configuration),
            "run",
            web.url + "/api/v1/openapi.json",
            "--seed",
            "1",
            "--no-color",
        ),
        *("--header", f"Authorization: {shown['Authorization']}"),
        *("--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing", "--checks", "all"),
        # What is below /api/prometheus is described by Prometheus and not here: tests/api/test_prometheus.py.
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=540, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert "Traceback" not in web.log
    still_let_in = urllib.request.Request(web.url + "/api/v1/devices", headers=shown)
    assert urllib.request.urlopen(still_let_in, timeout=30).status == 200, "all of it was asked by somebody who may"
