"""A short fuzz of every parser; ``python -m tests.fuzz.run TARGET --runs 1000000`` is a long one."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.run import seeds
from tests.fuzz.targets import TARGETS

RUNS = 10_000
ROOT = Path(__file__).parent.parent.parent


def fuzz(target: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.run", target, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=100, check=False)


def test_every_parser_is_fuzzed() -> None:
    assert len(TARGETS) == 12


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_a_parser(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)
    done = fuzz(target, f"--runs={RUNS}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"number_of_executed_units: {RUNS}" in done.stderr


def test_a_broken_promise_ends_the_run_with_its_input_shown() -> None:
    done = fuzz("broken", "--runs=1000")
    assert done.returncode != 0
    found = re.findall(r"broken: failed on (\S+): (b(['\"]).*\3)", done.stderr)
    assert len(found) == 1, done.stderr[-3000:]
    [shown] = found
    path, content = Path(shown[0]), ast.literal_eval(shown[1])
    assert path.read_bytes() == content and b"\n" in content
    path.unlink()
