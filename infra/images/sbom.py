"""The software bill of materials of an image: CycloneDX 1.6 (ECMA-424), JSON.

    python3 sbom.py PART amd64|arm64 < requirements.lock > isotherm.cdx.json

Lists the Python packages, as the lock has them, and the Debian packages that are in it, each with its package URL, so that a
scanner need not guess.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

from requirements import PARTS, Lock, of_image, parse

DEBIAN = Path("/debian")
"""Part → a folder with the control data of the Debian packages that it adds."""


def components(lock: Lock, part: str) -> Iterator[dict[str, object]]:
    """Yield a component for each package of a part's image."""
    for package in of_image(lock, part):
        version = lock[package][0].split("==")[1].split()[0]
        yield _component(package, version, f"pkg:pypi/{package}@{version}")
    yield from _debian(part)


def _debian(part: str) -> Iterator[dict[str, object]]:
    for file in (DEBIAN / part).glob("status.d/*"):
        fields = Parser().parsestr(file.read_text())
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={fields['Architecture']}"
        yield _component(name, version, purl)
    if upon := PARTS[part].get("upon"):
        yield from _debian(upon)


def _component(name: str, version: str, purl: str) -> dict[str, object]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def bill(lock: Lock, part: str, arch: str) -> dict[str, object]:
    """Return the whole bill."""
    found = {str(one["purl"]): one for one in components(lock, part)}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": f"isotherm-{part}-{arch}"}},
        "components": [found[purl] for purl in sorted(found)],
    }


if __name__ == "__main__":
    json.dump(bill(parse(sys.stdin.read()), sys.argv[1], sys.argv[2]), sys.stdout, indent=1)
