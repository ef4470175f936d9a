"""``isotherm devices``: which devices there are, what they last said, and the tokens they show."""

from __future__ import annotations

from typing import Annotated

import typer

from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import ago, asked, iso, print_json, print_table
from isotherm.cli.sources import devices as sources
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.registry import Device
from isotherm.settings import Settings
from isotherm.store.reader import Latest

Names = Annotated[list[str], typer.Argument(help="Names of devices.")]
Name = Annotated[str, typer.Argument(help="Name of a device.")]

app = typer.Typer(help="List devices with their newest values; register them, and give them tokens.")


@app.callback(invoke_without_command=True)
def devices(context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List every device with its newest values and whether it is there; see the commands below for tokens and gateways."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings.load(data_dir=data_dir)

    async def read() -> tuple[list[Latest], dict[str, list[str]], dict[str, str]]:
        async with sources.devices(settings, "devices:read", "series:read") as source:
            registered = await source.all() if as_json else []
            labels = {device.name: sorted(device.labels) for device in registered}
            return await source.latest(), labels, await source.statuses()

    rows, labels, status = asked(settings, read())
    if as_json:
        print_json(
            [
                {
                    "device": row.device,
                    "metric": row.metric,
                    "value": row.value,
                    "unit": row.unit,
                    "time": iso(row.time),
                    "received_at": iso(row.received_at),
                    "labels": labels.get(row.device, []),
                    "status": status.get(row.device),
                }
                for row in rows
            ]
        )
    elif not rows:
        print("no device has sent anything yet; try: isotherm simulate")
    else:
        now = now_us()
        print_table(
            ("device", "status", "metric", "value", "unit", "last seen"),
            (
                (row.device, status.get(row.device, ""), row.metric, f"{row.value:g}", row.unit, ago(now - row.received_at))
                for row in rows
            ),
        )


@app.command()
def add(
    names: Names,
    gateway: Annotated[bool, typer.Option("--gateway", help="They may speak for their children.")] = False,
    via: Annotated[str, typer.Option(help="The gateway that speaks for them.")] = "",
    type: Annotated[str | None, typer.Option(help="What kind of device they are, such as a decoder's name.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Register devices, or change whether one is a gateway or has one, and its type."""
    settings = Settings.load(data_dir=data_dir)

    async def enter() -> None:
        async with sources.devices(settings, "devices:read", "devices:write") as source:
            for name in names:
                await source.add(name, is_gateway=gateway, gateway=via, type=type)

    asked(settings, enter())
    print(f"registered {', '.join(names)}" + (f" via {via}" if via else "") + "; a token: isotherm devices token NAME")


# A label may begin with an h, so -h is none of its options.
@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
def label(
    name: Name,
    changes: Annotated[
        list[str] | None, typer.Argument(help="+WORD or +KEY=VALUE gives it a label, -WORD or -KEY takes one.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change the labels of a device, and print them: isotherm devices label kitchen +floor=3 -old.

    A label is a word or KEY=VALUE; a key has one value, a new one takes the place of the old.
    """
    settings = Settings.load(data_dir=data_dir)
    add, remove = _changes(changes or [])

    async def change() -> frozenset[str]:
        async with sources.devices(settings, "devices:read", "devices:write") as source:
            if changes:
                return await source.label(name, add=add, remove=remove)
            device = await source.get(name)
            if device is None:
                raise IsothermError(f"there is no device {name!r}; see: isotherm devices list")
            return device.labels

    labels = sorted(asked(settings, change()))
    if as_json:
        print_json({"device": name, "labels": labels})
    else:
        print(f"{name}: {' '.join(labels) or 'no labels'}")


def _changes(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the labels to add and those to remove.

    Raises:
        BadParameter: one says neither.
    """
    for text in texts:
        if text[0:1] not in ("+", "-") or not text[1:]:
            raise typer.BadParameter(f"{text!r}, expected +LABEL to add one or -LABEL to remove one")
    return [text[1:] for text in texts if text[0] == "+"], [text[1:] for text in texts if text[0] == "-"]


@app.command()
def token(
    name: Name,
    revoke: Annotated[bool, typer.Option("--revoke", help="Make all of its tokens invalid, and give it none.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a device a new token and print it; the one it had before stays valid, older ones do not."""
    settings = Settings.load(data_dir=data_dir)

    async def change() -> str | int:
        async with sources.devices(settings, "devices:read", "device-tokens:write") as source:
            return await source.revoke_tokens(name) if revoke else await source.new_token(name)

    made = asked(settings, change())
    if as_json:
        print_json({"device": name, "revoked": made} if revoke else {"device": name, "token": made})
    else:
        print(f"{made} tokens of {name} work no longer (connectors notice within 10 s)" if revoke else made)


@app.command()
def remove(names: Names, data_dir: DataDir = None) -> None:
    """Forget devices with their tokens, labels and configuration; their history stays until it expires."""
    settings = Settings.load(data_dir=data_dir)

    async def forget() -> None:
        async with sources.devices(settings, "devices:read", "devices:write") as source:
            for name in names:
                await source.remove(name)

    asked(settings, forget())
    print(f"removed {', '.join(names)}")


@app.command()
def show(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one device: its newest values, its attributes, its type, labels and gateway, and how many tokens it has."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> sources.Profile:
        async with sources.devices(settings, "devices:read", "series:read") as source:
            return await source.profile(name)

    found = asked(settings, read())
    if found.device is None and not found.latest and not found.attributes:
        raise IsothermError(f"there is no device {name!r}; see: isotherm devices")
    device, latest = found.device or Device(name, 0), found.latest
    texts = {one.series.partition("/")[2]: {"value": one.text, "time": iso(one.time)} for one in found.attributes}
    if as_json:
        print_json(
            {
                "device": name,
                "type": device.type or None,
                "labels": sorted(device.labels),
                "is_gateway": device.is_gateway,
                "gateway": device.gateway or None,
                "children": sorted(device.children),
                "tokens": found.tokens,
                "attributes": texts,
                "metrics": {row.metric: {"value": row.value, "unit": row.unit, "time": iso(row.time)} for row in latest},
            }
        )
        return
    notes = [f", a {device.type}"] * bool(device.type) + [f", via {device.gateway}"] * bool(device.gateway)
    notes += [f", labelled {' '.join(sorted(device.labels))}"] * bool(device.labels)
    print(f"{name}: {found.tokens} tokens" + "".join(notes))
    if device.is_gateway:
        print(f"  a gateway for {', '.join(sorted(device.children)) or 'no device yet'}")
    rows = [(row.metric, f"{row.value:g} {row.unit}".strip(), iso(row.time)) for row in latest]
    rows += [(attribute, held["value"], held["time"]) for attribute, held in texts.items()]
    print_table(("metric or attribute", "value", "time"), rows)


@app.command("list")
def list_registered(
    label: Annotated[str, typer.Option(help="Only those with this label: a word, a key, or KEY=VALUE.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the names of all registered devices, also those that have sent nothing."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> list[str]:
        async with sources.devices(settings, "devices:read") as source:
            return [one.name for one in await source.all() if not label or one.has_label(label)]

    names = asked(settings, read())
    if as_json:
        print_json(names)
    else:
        none = f"no device has the label {label}" if label else "no device is registered; try: isotherm devices add NAME"
        print("\n".join(names) or none)


async def register_fleet(settings: Settings, gateway: str, names: list[str]) -> str:
    """Register simulated devices as children of a gateway, and return a token of it.

    Raises:
        SettingsError: a name is none.
        Unavailable: the platform does not answer.
    """
    async with sources.devices(settings, "devices:read", "devices:write", "device-tokens:write") as source:
        await source.add(gateway, is_gateway=True)
        for name in names:
            await source.add(name, gateway=gateway)
        return await source.new_token(gateway)
