"""The packages of one part kind, with versions and hashes, out of the lock of them all.

    python3 infra/images/requirements.py worker < requirements.lock

prints what the worker's image has beyond the image that it is built upon. What a package needs is read from the lock's own
``# via`` notes, so there is one lock, and a part cannot have another version than the tests had.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PARTS = tomllib.loads((Path(__file__).parent / "parts.toml").read_text())

Lock = dict[str, tuple[str, set[str]]]
"""Package → its lines, and who needs it."""


def parse(lock: str) -> Lock:
    """Split a lock that pip-compile wrote with hashes and annotations."""
    blocks: list[list[str]] = []
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    return {block[0].split("==")[0]: ("\n".join(block), set(_needed_by(block))) for block in blocks}


def _needed_by(block: Iterable[str]) -> Iterable[str]:
    notes = [line.strip().removeprefix("#").strip() for line in block if line.startswith("    #")]
    return (note.removeprefix("via").strip() for note in notes if note != "via")


def closure(lock: Lock, packages: Iterable[str]) -> set[str]:
    """Return packages and all that they need.

    Raises:
        KeyError: one is not in the lock.
    """
    found, waiting = set[str](), list(packages)
    while waiting:
        package = waiting.pop()
        if package not in lock:
            raise KeyError(f"{package} is not in the lock: is it in pyproject.toml, and was `make lock` run?")
        if package not in found:
            found.add(package)
            waiting += [name for name, (_, needed_by) in lock.items() if package in needed_by]
    return found


def of_image(lock: Lock, part: str) -> set[str]:
    """Return all packages that a part's image has."""
    upon = PARTS[part].get("upon")
    return closure(lock, PARTS[part]["packages"]) | (of_image(lock, upon) if upon else set())


def of_layer(lock: Lock, part: str) -> set[str]:
    """Return the packages that a part's image has beyond the one that it is built upon."""
    upon = PARTS[part].get("upon")
    return of_image(lock, part) - (of_image(lock, upon) if upon else set()) | set(PARTS[part].get("whole", ()))


if __name__ == "__main__":
    if sys.argv[1:] not in [[part] for part in PARTS]:
        sys.exit(f"usage: requirements.py {'|'.join(PARTS)} < requirements.lock")
    locked = parse(sys.stdin.read())
    print("\n".join(locked[package][0] for package in sorted(of_layer(locked, sys.argv[1]))))
