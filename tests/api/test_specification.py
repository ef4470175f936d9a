"""The API is as its OpenAPI description says, whatever is sent: schemathesis over all of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
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


async def token(settings: Settings) -> str:
    async with kernel(settings) as accounts:
        made, _ = await accounts.create_token("anna", "schemathesis", ["read", "write"], 1, Actor("test", "cli"))
        return made


def test_schemathesis_finds_nothing(settings: Settings, web: Web, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text("[parameters]\nwait = 0\n")  # no device is there whose answer could be waited for
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
        *("--header", f"Authorization: Bearer {asyncio.run(token(settings))}"),
        *("--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing", "--checks", "all"),
        # What is below /api/prometheus is described by Prometheus and not here: tests/api/test_prometheus.py.
        *("--exclude-path", "/stream"),  # it does not end: tests/api/test_stream.py
        # Whether a token is asked for is tested by hand: a request without one may be a browser's.
        *("--exclude-checks", "ignored_auth,positive_data_acceptance,missing_required_header"),
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=540, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert "Traceback" not in web.log
