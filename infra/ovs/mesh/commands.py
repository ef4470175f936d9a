"""The commands: up, down, status, check."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Sequence

from mesh import checking, plan, refusals, removal
from mesh.errors import CommandError, OverlayError
from mesh.found import Found, look
from mesh.nodelist import Node, Overlay
from mesh.plan import Step
from mesh.system import run

Say = Callable[[str], None]


def up(overlay: Overlay, me: Node, say: Say, *, is_trial: bool = False) -> None:
    """Bring this node's part up, or change it to what the list says now.

    Raises:
        OverlayError: something speaks against it, and nothing was changed; or a change failed.
    """
    refusals.check_programs()
    found = look()
    refusals.check_state(found)
    where = refusals.place(overlay, me, found)
    refusals.check(overlay, where, found)
    todo = plan.steps(overlay, where, found)
    if not todo:
        say(f"{me.name}: nothing to change")
        return
    for step in todo:
        say(f"{me.name}: {step.what}")
        if not is_trial:
            _take(step)
    say(f"{me.name}: {len(todo)} changes" + (" would be made" if is_trial else "; it is up"))


def down(say: Say) -> None:
    """Take away what is there, as far as that can be done.

    Raises:
        OverlayError: something is left, and why.
    """
    refusals.check_programs()
    found = look()
    todo = removal.steps(found)
    failed = []
    for step in todo:
        say(step.what)
        try:
            _take(step)
        except CommandError as error:
            failed.append(str(error))
    if found.switches is None:
        failed.append("Open vSwitch does not answer, and may have bridges of ours: start it, and take down again")
    if failed:
        raise OverlayError("; ".join(failed))
    say(f"{len(todo)} parts are taken away" if todo else "nothing was there")


def status(overlay: Overlay, me: Node) -> dict[str, Any]:
    """Return how this node's part is, for programs."""
    found = look()
    unfinished = next(refusals.half_up(found), "")
    parts = found.parts()
    changes = _changes(overlay, me, found)
    return {
        "node": me.name,
        "state": "half up" if unfinished else "down" if not parts else "up" if not changes else "outdated",
        "datapath": next((switch.datapath for switch in (found.switches or {}).values() if switch.mark), ""),
        "mtu": overlay.mtu,
        "gateway": str(me.gateway),
        "pods": len(found.pods()),
        "parts": parts,
        "changes": changes,
        "tunnels": {
            other.name: {
                "address": str(other.address),
                "bfd": found.ports[other.tunnel].bfd_status.get("state", "") if other.tunnel in found.ports else "missing",
            }
            for other in overlay.others(me)
        },
    }


def check(overlay: Overlay, me: Node) -> Sequence[checking.Finding]:
    """Try what this node can try.

    Raises:
        OverlayError: it cannot be tried.
    """
    refusals.check_programs()
    found = look()
    return list(checking.check(overlay, refusals.place(overlay, me, found), found))


def _changes(overlay: Overlay, me: Node, found: Found) -> list[str]:
    try:
        return [step.what for step in plan.steps(overlay, refusals.place(overlay, me, found), found)]
    except OverlayError as error:
        return [str(error)]


def _take(step: Step) -> None:
    for path, text in step.files:
        _write(path, text)
    *silent, last = step.commands or ((),)
    for command in silent:
        run(*command)
    if last:
        run(*last, given=step.given)


def _write(path: Path, text: str) -> None:
    """Write a file so that nobody reads half of it."""
    if path.is_relative_to("/proc"):
        path.write_text(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)
