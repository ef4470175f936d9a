"""``isotherm decode``: what a payload would become; a test bench for decoders, which needs no running stack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isotherm.cli.options import AsJson
from isotherm.cli.output import iso, print_json, print_table
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.settings import Settings

if TYPE_CHECKING:
    from connectors.trial import Trial

MAX_SHOWN_BYTES = 40
"""How much of a reject's bytes the table shows."""


def decode(
    file: Annotated[str, typer.Argument(help="File with a payload, or - for standard input.")],
    type: Annotated[
        str,
        typer.Option(help="A decoder's name or a format: senml-json, influx, thingsboard, number:METRIC. Else it is seen."),
    ] = "",
    hex: Annotated[bool, typer.Option("--hex", help="The file holds payloads in hexadecimal, each in a line.")] = False,
    decoders: Annotated[
        str | None, typer.Option(help="Python files with decoders, comma-separated; beside ISOTHERM_DECODERS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decode a payload and print its readings, and what would be refused and why; exit code 1 when something would be."""
    from connectors.trial import Bench

    settings = Settings.load()
    files = ",".join(part for part in (settings.decoders, decoders) if part)
    bench = Bench(settings.model_copy(update={"decoders": files}))
    form = bench.form_of(type) if type else ""
    now = now_us()
    trials = [bench.attempt(payload, now, form) for payload in _payloads(file, hex)]
    if as_json:
        print_json([_fields(trial) for trial in trials])
    else:
        _print(trials)
    if any(trial.rejects for trial in trials):
        raise typer.Exit(1)


def _payloads(file: str, hex: bool) -> list[bytes]:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise IsothermError(f"{file} cannot be read: {error.strerror}") from error
    if not hex:
        return [data]
    payloads = [_from_hex(line, at) for at, line in enumerate(data.decode(errors="replace").splitlines(), 1) if line.strip()]
    if not payloads:
        raise IsothermError(f"{file} holds no payload, expected hexadecimal digits")
    return payloads


def _from_hex(line: str, at: int) -> bytes:
    """Understand hexadecimal digits as people write them: ``0100e2``, ``01 00 E2``, ``01:00:e2``, ``0x0100e2``."""
    try:
        return bytes.fromhex(line.strip().removeprefix("0x").replace(":", " ").replace("-", " "))
    except ValueError:
        raise IsothermError(f"line {at}: {line.strip()[:40]!r} is no payload in hexadecimal: two digits a byte") from None


def _print(trials: list[Trial]) -> None:
    rows = [
        (str(at), name, value, unit, iso(time))
        for at, trial in enumerate(trials, 1)
        for name, value, unit, time in _values(trial)
    ]
    refused = [
        (str(at), one.reason, one.detail, _shown(one.raw)) for at, trial in enumerate(trials, 1) for one in trial.rejects
    ]
    skipped = 0 if len(trials) > 1 else 1  # the payload's number is of no use when there is one
    print(f"read as {', '.join(dict.fromkeys(trial.form for trial in trials))}")
    if rows:
        print_table(("payload", "name", "value", "unit", "time")[skipped:], (row[skipped:] for row in rows))
    if refused:
        print("refused:")
        print_table(("payload", "reason", "detail", "bytes")[skipped:], (row[skipped:] for row in refused))
    if not rows and not refused:
        print("nothing is in it")


def _values(trial: Trial) -> list[tuple[str, str, str, int]]:
    rows = [(one.name, f"{one.value:.10g}", one.unit, one.time) for one in trial.readings]
    return rows + [(one.series, one.text, "(attribute)", one.time) for one in trial.attributes]


def _fields(trial: Trial) -> dict[str, Any]:
    return {
        "type": trial.form,
        "readings": [
            {"name": one.name, "value": one.value, "unit": one.unit, "time": iso(one.time), "seq": one.seq}
            for one in trial.readings
        ],
        "attributes": [{"name": one.series, "text": one.text, "time": iso(one.time)} for one in trial.attributes],
        "rejects": [
            {"reason": one.reason, "detail": one.detail, "at": one.at, "hex": one.raw.hex()} for one in trial.rejects
        ],
    }


def _shown(raw: bytes) -> str:
    cut = raw[:MAX_SHOWN_BYTES]
    text = cut.decode() if cut.isascii() and cut.decode().isprintable() else cut.hex(" ")
    return text + "…" * (len(raw) > MAX_SHOWN_BYTES)
