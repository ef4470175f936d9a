"""Feeds a parser with bytes that find their way through it: ``python -m tests.fuzz.run TARGET --runs N``.

libFuzzer (through Atheris) sees which branches of the parsers an input takes and breeds those that take new
ones. It begins with the inputs that the tests have. It ends the process at the first input that breaks a promise of
``tests/fuzz/targets.py`` or takes longer than a second; the input is shown and its file kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cbor2

CASES = Path(__file__).parent.parent / "connectors/cases"
MAX_INPUT_BYTES = 1024
HANG_S = 1

_RECORDS = [
    {"bn": "urn:dev:ow:10e2073a01080063:", "bt": 1.79e9, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
    {"n": "current", "t": -5, "v": 1.2, "seq": 7},
    {"n": "on", "vb": True},
    {"n": "fw", "vs": "1.2.3"},
]
_NUMBERED = [{-2: "d/", -3: 1.79e9, 0: "t", 2: 21.5, 6: -1}, {0: "id", 8: b"\x01\xff"}, {0: "a", 2: 1, "new_": 0}]


def seeds(target: str) -> list[bytes]:
    """Return inputs to begin with."""
    if (CASES / target).is_dir():
        return [path.read_bytes() for path in sorted((CASES / target).glob("*/input.txt"))]
    array, lines = json.dumps(_RECORDS).encode(), "\n".join(map(json.dumps, _RECORDS)).encode()
    fraction = b"\x81\xa2\x00\x63d/t\x02\xc4\x82\x21\x19\x0a\xab"
    return {
        "hook": [array, b"[{}]", b"[]"],
        "number": [b"21.5", b" -1e3\n", b"ON", b"false", b"nan", b"+.5E-2"],
        "senml_lines": [lines, array, array + b"\n" + lines],
        "senml_json": [array, lines, b"{}"],
        "senml_cbor": [cbor2.dumps(_RECORDS), cbor2.dumps(_NUMBERED), cbor2.dumps(_NUMBERED[0]), fraction, b"\x9f\xff"],
        "coap_message": [
            b"\x42\x02\x00\x01tt\xb8readings\x11\x6e\xff" + array,
            b"\x40\x01\x00\x01\xbb.well-known\x04core\xc1\x0e",
        ],
        "coap_frames": [b"\x07\x40\xe1\x20\x01\xff\x81\x02t\xb8readings", b"\x01\xd0\x00\x02" + b"x" * 20],
    }.get(target, [b"\x03" + lines])


def main() -> int:
    """Run the fuzzer in a process of its own, which it ends by itself; report what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--corpus", type=Path, help="keep inputs here that take new branches (default: a temporary directory)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options, fuzzer_options = parser.parse_known_args()
    if options.inside:
        _fuzz(options.target, fuzzer_options)
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch, "seeds")
        given.mkdir()
        for i, seed in enumerate(seeds(options.target)):
            (given / str(i)).write_bytes(seed)
        corpus = options.corpus or Path(scratch, "corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        crash = Path(tempfile.gettempdir(), f"isotherm-fuzz-{options.target}-{os.getpid()}")
        command = [sys.executable, "-m", "tests.fuzz.run", options.target, "--inside", str(corpus), str(given)]
        command += [f"-runs={options.runs}", f"-seed={options.seed}", f"-max_len={MAX_INPUT_BYTES}", f"-timeout={HANG_S}"]
        # Atheris itself grows with the runs, to over 1 GB in a million; the same inputs without it stay at 64 MB.
        command += [f"-exact_artifact_path={crash}", "-print_final_stats=1", "-rss_limit_mb=8192"]
        code = subprocess.run(command, check=False).returncode
        if crash.exists():
            print(f"{options.target}: failed on {crash}: {crash.read_bytes()!r}", file=sys.stderr)
    return code


def _fuzz(target: str, options: list[str]) -> None:
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["connectors.formats", "connectors.coap"]):
        from tests.fuzz import targets
    check = (targets.TARGETS | {"broken": targets.broken})[target]
    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
