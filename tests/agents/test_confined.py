"""Other people's code is ended, with all that it starts."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import psutil
import pytest

from agents.runner import Job
from agents.trial import Description, describe
from isotherm.errors import AnalyticFailed

GOOD = '''
from agents import per_reading

@per_reading("*/t", output="twice", unit="K")
def mine(reading, *, factor: float = 2.0):
    """Twice."""
    return factor * reading.value
'''


def described(folder: Path, text: str) -> Description:
    path = folder / "mine.py"
    path.write_text(text)
    return describe(Job("mine", path), multiprocessing.get_context("forkserver"))


def test_what_it_says_of_itself_comes_back(tmp_path: Path) -> None:
    found = described(tmp_path, GOOD)
    assert (found.inputs, found.outputs, found.text) == (["*/t"], {"twice": "K"}, "Twice.")
    assert found.parameters == {"inputs": "*/t", "output": "twice", "unit": "K", "factor": 2.0}


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    sleeping = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    described(
        tmp_path,
        f"""
import os, subprocess, sys
child = subprocess.Popen({sleeping})
forked = os.fork() or os.execv(sys.executable, {sleeping})
open({str(told)!r}, "w").write(f"{{child.pid}} {{forked}}")
{GOOD}""",
    )
    pids = [int(pid) for pid in told.read_text().split()]
    assert len(pids) == 2
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in psutil.wait_procs(left, timeout=10)[1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", "ended its own process, with code 3"),
        ("bytearray(8 * 2**30)", "MemoryError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def mine(:", "SyntaxError"),
        ("", "declares none"),
        (GOOD.replace("mine", "yours"), "call the function mine, or the file yours.py"),
    ],
)
def test_what_is_wrong_is_told_by_the_files_own_lines(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AnalyticFailed) as caught:
        described(tmp_path, text)
    assert said in str(caught.value)
    assert "importlib" not in str(caught.value)
