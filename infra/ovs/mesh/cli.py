"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from dataclasses import asdict, replace
from pathlib import Path

from mesh import commands, nodelist
from mesh.errors import OverlayError
from mesh.nodelist import Node, Overlay

NODES = "/etc/isotherm/nodes.ini"

FAILED, WRONG = 1, 2
"""Exit codes: it is not as it should be; it was refused."""


def main() -> int:
    """Do what the command line says, and return the exit code."""
    options = _options()
    try:
        return _COMMANDS[options.command](options)
    except (OverlayError, OSError) as error:
        print(f"overlay: {error}", file=sys.stderr)
        return WRONG


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="overlay", description="The pods' network of this node.")
    within = parser.add_subparsers(dest="command", required=True, metavar="up|down|status|check")
    for name, text in {
        "up": "bring it up, or change it to what the node list says now",
        "down": "take it away, whatever is there of it",
        "status": "say what is there; exit code 1 unless it is up",
        "check": "try it, and say what to mend; exit code 1 if there is anything",
    }.items():
        command = within.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != "down":
            command.add_argument("--nodes", type=Path, default=Path(NODES), help=f"the node list; by default {NODES}")
            command.add_argument(
                "--node", default=socket.gethostname().split(".")[0], help="who this is; by default the host name"
            )
        if name == "up":
            command.add_argument("--dry-run", action="store_true", help="only say what would be changed")
        if name in ("status", "check"):
            command.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def _read(options: argparse.Namespace) -> tuple[Overlay, Node]:
    try:
        overlay = nodelist.parse(options.nodes.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise OverlayError(
            f"the node list {options.nodes} cannot be read ({error.strerror}): say where it is with --nodes"
        ) from error
    except OverlayError as error:
        raise OverlayError(f"{options.nodes}: {error}") from error
    if wish := os.environ.get("DATAPATH"):
        try:
            overlay = replace(overlay, datapath=nodelist.datapath(wish))
        except ValueError as error:
            raise OverlayError(f"DATAPATH is {wish!r}: {error}") from error
    return overlay, overlay.node(options.node)


def _up(options: argparse.Namespace) -> int:
    overlay, me = _read(options)
    commands.up(overlay, me, print, is_trial=options.dry_run)
    return 0


def _down(_: argparse.Namespace) -> int:
    commands.down(print)
    return 0


def _status(options: argparse.Namespace) -> int:
    overlay, me = _read(options)
    found = commands.status(overlay, me)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{me.name}: {found['state']}; {found['pods']} pods, MTU {overlay.mtu}, datapath {found['datapath'] or '-'}")
        for name, tunnel in found["tunnels"].items():
            print(f"  {name:<16} {tunnel['address']:<16} BFD {tunnel['bfd']}")
        for line in found["parts"]:
            print(f"  there is {line}")
        for line in found["changes"]:
            print(f"  `overlay up`: {line}")
    return 0 if found["state"] == "up" else FAILED


def _check(options: argparse.Namespace) -> int:
    overlay, me = _read(options)
    findings = commands.check(overlay, me)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"good  {finding.what}" if finding.is_good else f"BAD   {finding.what}: {finding.mend}")
    return 0 if all(finding.is_good for finding in findings) else FAILED


_COMMANDS = {"up": _up, "down": _down, "status": _status, "check": _check}
