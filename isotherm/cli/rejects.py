"""``isotherm rejects``: what was refused, why, its original bytes, and how to take it in after all."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from isotherm.cli.options import AsJson, DataDir, duration_us
from isotherm.cli.output import as_shown, asked, iso, print_json, print_table
from isotherm.cli.sources.rejects import rejects
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.reject_log import Filter, Kept
from isotherm.rejects import RejectRecord, hex_dump
from isotherm.settings import Settings

MAX_DETAIL_CHARS = 60

Reason = Annotated[str | None, typer.Option(help="Only those with this reason, such as malformed or time.")]
Device = Annotated[str | None, typer.Option(help="Only those of this device.")]
Protocol = Annotated[str | None, typer.Option(help="Only those that came over this protocol.")]
Last = Annotated[str | None, typer.Option(help="Only those of the last 90s, 10m, 24h, 7d.")]

app = typer.Typer(no_args_is_help=True, help="Show what was refused, and take it in after all.")


def filter_of(reason: str | None, device: str | None, protocol: str | None, last: str | None) -> Filter:
    """Understand the options."""
    return Filter(reason, device, protocol, now_us() - duration_us(last) if last else 0)


def fields_of(kept: Kept) -> dict[str, Any]:
    """Return a reject as plain values."""
    record: dict[str, Any] = msgspec.to_builtins(kept.record)
    return {"id": kept.id, **record, "received_at": iso(kept.record.received_at), "replayed": kept.is_replayed}


@app.command("list")
def list_rejects(
    reason: Reason = None,
    device: Device = None,
    protocol: Protocol = None,
    last: Last = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List what was refused, oldest first."""
    settings = Settings.load(data_dir=data_dir)
    chosen = filter_of(reason, device, protocol, last)

    async def read() -> tuple[int, list[Kept]]:
        async with rejects(settings, "rejects:read") as source:
            found = await source.all(chosen)
            return len(found), [await source.whole(kept) if as_json else kept for kept in found[-limit:]]

    count, shown = asked(settings, read())
    if as_json:
        print_json([fields_of(kept) for kept in shown])
    elif not shown:
        print("nothing was refused")
    else:
        print_table(
            ("id", "received", "protocol", "device", "reason", "count", "bytes", "detail"),
            (
                (
                    kept.id + (" replayed" if kept.is_replayed else ""),
                    iso(kept.record.received_at),
                    kept.record.protocol,
                    kept.record.device or "",
                    kept.record.reason,
                    str(kept.record.count),
                    str(kept.record.size),
                    _short(kept.record.detail),
                )
                for kept in shown
            ),
        )
        if count > len(shown):
            print(f"{count - len(shown):,} older ones: --limit {count}")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="PARTITION/OFFSET, from `isotherm rejects list`.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one reject with its original bytes."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> Kept | None:
        async with rejects(settings, "rejects:read") as source:
            return await source.get(id)

    kept = asked(settings, read())
    if kept is None:
        raise IsothermError(f"there is no reject {id!r}; see: isotherm rejects list")
    if as_json:
        print_json(fields_of(kept))
        return
    for name, value in fields_of(kept).items():
        if name not in ("raw", "raw_base64"):
            print(f"{name:12} {as_shown(str(value))}")
    record = kept.record
    print("raw" if record.is_whole else f"raw          the first {len(record.original):,} of {record.size:,} bytes")
    print(as_shown(record.raw) if record.raw is not None else hex_dump(record.original))


@app.command()
def replay(
    id: Annotated[list[str] | None, typer.Argument(help="PARTITION/OFFSET; else all that the options leave.")] = None,
    reason: Reason = None,
    device: Device = None,
    protocol: Protocol = None,
    last: Last = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Read them as another format: senml-json, influx, number:METRIC, decoder:NAME."),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="FILE.py[:NAME], a function or decoder that turns the original bytes into SenML.", metavar="FILE"),
    ] = None,
    as_device: Annotated[str | None, typer.Option(help="Device of those that name none.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
    strangers: Annotated[
        bool,
        typer.Option("--strangers", help="Also those whose sender did not show for whom it may speak: look at them first."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which ones.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take rejects in once more: after a device was registered, or through a corrected decoder.

    What is refused again becomes a new reject. A reject that was replayed is marked, and passed over the next time. Where
    devices need tokens, what came without one is passed over, unless it is named by its id or --as-device says whose it is.
    """
    settings = Settings.load(data_dir=data_dir)
    chosen = filter_of(reason, device, protocol, last)
    strangers = strangers or settings.auth == "open"
    figures = asked(settings, _replay(settings, chosen, set(id or ()), form, decoder, as_device, again, strangers, dry_run))
    if as_json:
        print_json(figures)
        return
    print(
        f"{figures['rejects']} rejects: {figures['accepted']} readings accepted, {figures['rejected']} refused again"
        + (f", {figures['cut']} passed over because not all of their bytes were kept" if figures["cut"] else "")
        + (f", {figures['stored']} passed over because only an analytic failed on them" if figures["stored"] else "")
        + (
            f", {figures['strangers']} passed over because their sender did not show for whom it may speak (--strangers)"
            if figures["strangers"]
            else ""
        )
        + (
            f", {figures['replayed_before']} passed over because they were replayed before (--again)"
            if figures["replayed_before"]
            else ""
        )
        + (" (nothing was done: --dry-run)" if dry_run else "")
    )
    for error in figures["errors"]:
        print(f"  {error}")
    if figures["rejected"]:
        print("What was refused again is a new reject each: see isotherm rejects list")


async def _replay(
    settings: Settings,
    chosen: Filter,
    ids: set[str],
    form: str | None,
    decoder: str | None,
    device: str | None,
    again: bool,
    strangers: bool,
    dry_run: bool,
) -> dict[str, Any]:
    from rich.progress import track

    from connectors.replay import load_decoder

    correct = load_decoder(decoder) if decoder else None
    async with rejects(settings, "rejects:read", "rejects:write") as source:
        found = [kept for kept in await source.all(chosen) if not ids or kept.id in ids]
        if missing := ids - {kept.id for kept in found}:
            raise IsothermError(f"there is no reject {min(missing)!r}; see: isotherm rejects list")
        left = [kept for kept in found if again or not kept.is_replayed]
        ours = [kept for kept in left if kept.record.reason != "analytic"]
        known = [kept for kept in ours if strangers or ids or not _is_strangers(kept.record, device)]
        wanting = [await source.whole(kept) for kept in known]
        whole = [kept for kept in wanting if kept.record.is_whole]
        figures: dict[str, Any] = {
            "rejects": len(whole),
            "cut": len(wanting) - len(whole),
            "stored": len(left) - len(ours),
            "strangers": len(ours) - len(known),
            "replayed_before": len(found) - len(left),
        }
        figures |= {"accepted": 0, "rejected": 0}
        errors: dict[str, int] = {}
        if whole and not dry_run:
            async with source.replaying(correct) as replay:
                for kept in track(whole, "replaying", transient=True):
                    outcome = await replay(kept, form, device)
                    figures["accepted"] += outcome.accepted
                    figures["rejected"] += outcome.rejected
                    for error in outcome.errors:
                        errors[error] = errors.get(error, 0) + 1
    return figures | {"errors": [f"{count} × {error}" for error, count in errors.items()]}


def _is_strangers(record: RejectRecord, device: str | None) -> bool:
    """Tell whether nobody says for whom a reject may speak; ``device`` is whose it is said to be."""
    return record.is_strangers and (device is None or record.reason == "identity")


def _short(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"
