"""Takes the README's pictures from a stack of its own: ``make screenshot``. Lets it run until there is a curve."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from screenshot import take

DOCS = Path(__file__).parents[1] / "docs"
PORT_BASE = 27_300
CURVE_SECONDS = 290.0


def main() -> None:
    """Start a stack, wait, take the pictures, stop it."""
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "isotherm", "up", "--json", "--port-base", str(PORT_BASE), "--data-dir", directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stack:
            try:
                assert stack.stdout is not None
                web = next(event["urls"]["web"] for event in map(json.loads, stack.stdout) if event["event"] == "ready")
                print(f"ready at {web}; letting a curve grow for {CURVE_SECONDS:.0f} s")
                size = {"width": 1280, "height": 1010, "dark": False}
                asyncio.run(take(f"{web}device?id=room-003", DOCS / "device.png", seconds=CURVE_SECONDS, **size))
                asyncio.run(take(web, DOCS / "fleet.png", seconds=2.0, width=1280, height=700, dark=False))
            finally:
                stack.terminate()
    print(f"wrote {DOCS}/device.png and {DOCS}/fleet.png")


if __name__ == "__main__":
    main()
