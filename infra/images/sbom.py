"""The software bill of materials of an image: CycloneDX 1.6 (ECMA-424), JSON.

    python3 sbom.py PART amd64|arm64 > isotherm.cdx.json

Lists the Python and Debian packages that are in it, each with its package URL, so that a scanner need not guess.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

from requirements import PARTS

PACKAGES = Path("/opt/isotherm")
DEBIAN = Path("/debian")


def components(part: str) -> Iterator[dict[str, object]]:
    """Yield a component for each package of a part and of what it is built upon."""
    for distribution in distributions(path=[str(PACKAGES / part)]):
        name = distribution.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        yield _component(name, distribution.version, f"pkg:pypi/{name}@{distribution.version}")
    for file in (DEBIAN / part).glob("status.d/*"):
        fields = Parser().parsestr(file.read_text())
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={fields['Architecture']}"
        yield _component(name, version, purl)
    if upon := PARTS[part].get("upon"):
        yield from components(upon)


def _component(name: str, version: str, purl: str) -> dict[str, object]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def bill(part: str, arch: str) -> dict[str, object]:
    """Return the whole bill."""
    found = {str(one["purl"]): one for one in components(part)}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": f"isotherm-{part}-{arch}"}},
        "components": [found[purl] for purl in sorted(found)],
    }


if __name__ == "__main__":
    json.dump(bill(sys.argv[1], sys.argv[2]), sys.stdout, indent=1)
