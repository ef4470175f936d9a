"""Takes the pictures in docs/ from a stack of its own: ``make screenshots``. Lets it run until there is a curve."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from screenshot import take

DOCS = Path(__file__).parents[1] / "docs"
PORT_BASE = 27_300
CURVE_SECONDS = 290.0
"""Until the live chart, which shows five minutes, is full."""

SETTLE_SECONDS = 2.0

PREPARE = (
    "rules add warm --metric temperature --above 22.5 --hysteresis 0.5 --severity warning",
    "rules add hot --metric temperature --above 24 --hysteresis 1 --severity major",
    "rules add silent --silence 5m --severity minor",
    *(f"devices label room-{number:03} +floor={number // 9}" for number in range(1, 26)),
)


class Picture(NamedTuple):
    """What is taken of which page."""

    name: str
    path: str
    width: int = 1280
    height: int = 900
    dark: bool = False


PICTURES = (
    Picture("device", "device?id=room-003", height=1010),
    Picture("device-dark", "device?id=room-003", height=1010, dark=True),
    Picture("device-phone", "device?id=room-003", width=390, height=844),
    Picture("fleet", ""),
    Picture("fleet-phone", "", width=390, height=844, dark=True),
    Picture("compare", "compare?series=room-00*/temperature&last=1h"),
    Picture("alarms", "alarms"),
    Picture("pipeline", "pipeline", height=1200),
    Picture("admin", "admin"),
)


def main() -> None:
    """Start a stack, wait, take the pictures, stop it."""
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        isotherm = [sys.executable, "-m", "isotherm"]
        command = [*isotherm, "up", "--json", "--port-base", str(PORT_BASE), "--data-dir", directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stack:
            try:
                assert stack.stdout is not None
                web = next(event["urls"]["web"] for event in map(json.loads, stack.stdout) if event["event"] == "ready")
                for line in PREPARE:
                    subprocess.run(
                        [*isotherm, *line.split(), "--data-dir", directory], stdout=subprocess.DEVNULL, check=True
                    )
                print(f"ready at {web}; letting a curve grow for {CURVE_SECONDS:.0f} s")
                asyncio.run(_take_all(web))
            finally:
                stack.terminate()
    print(f"wrote {len(PICTURES)} pictures to {DOCS}")


async def _take_all(web: str) -> None:
    wait = CURVE_SECONDS
    for one in PICTURES:
        file = DOCS / f"{one.name}.png"
        await take(web + one.path, file, width=one.width, height=one.height, dark=one.dark, seconds=wait)
        wait = SETTLE_SECONDS


if __name__ == "__main__":
    main()
