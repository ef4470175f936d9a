"""Programs of the node: run one, and say in one line why it has failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any, Sequence

from mesh.errors import CommandError

SECONDS = 30.0
OVS_SECONDS = 10
"""How long Open vSwitch may take to do what it was told."""

os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where an ordinary user's shell does not look


def run(*command: str, given: str | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        CommandError: it is missing, failed, or took too long.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError as error:
        raise CommandError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{' '.join(command)}` has not ended after {SECONDS:g} s") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise CommandError(f"`{' '.join(command)}` failed: {said or f'exit code {done.returncode}'}")
    return done.stdout


def succeeds(*command: str, given: str | None = None) -> bool:
    """Tell whether a program ends well."""
    try:
        run(*command, given=given)
    except CommandError:
        return False
    return True


def ip(*arguments: str) -> list[dict[str, Any]]:
    """Ask iproute2, which answers in JSON."""
    return json.loads(run("ip", "-json", "-details", *arguments) or "[]")  # type: ignore[no-any-return]


def vsctl(*arguments: str) -> str:
    """Have Open vSwitch do something, and wait until it has."""
    return run("ovs-vsctl", f"--timeout={OVS_SECONDS}", *arguments)


def ovs_table(name: str) -> list[dict[str, Any]]:
    """Return the rows of a table of Open vSwitch's database; sets are lists, maps are dicts."""
    answer = json.loads(vsctl("--format=json", "list", name))
    return [dict(zip(answer["headings"], map(_plain, row))) for row in answer["data"]]


def missing(programs: Sequence[str]) -> list[str]:
    """Return the programs that are not installed."""
    return [program for program in programs if shutil.which(program) is None]


def _plain(value: Any) -> Any:
    """Unwrap a value as RFC 7047 §5.1 writes it: ["set", […]], ["map", [[k, v], …]], ["uuid", "…"]."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "set":
        return [_plain(one) for one in content]
    if kind == "map":
        return {key: _plain(one) for key, one in content}
    return content
