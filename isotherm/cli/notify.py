"""``isotherm notify``: who hears of alarms, how, and what they were not told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from isotherm.channels import Apprise, Channel, Channels, Email, Quiet, Webhook
from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import iso, print_json, print_table, run
from isotherm.clock import now_us
from isotherm.errors import IsothermError, SettingsError
from isotherm.events import SEVERITIES, Event, Severity
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.reader import answering

if TYPE_CHECKING:
    from agents.notifications.router import Bound, GivenUp

ANALYTIC = "notifications"
TEST_SECONDS = 30.0
"""How long a test message may take."""

SEVERITY = f"one of {', '.join(SEVERITIES)}"

Name = Annotated[str, typer.Argument(help="Name of a channel.")]

app = typer.Typer(no_args_is_help=True, help="Say who hears of alarms: by e-mail, webhook, or whatever apprise can reach.")


@app.command()
def add(
    name: Name,
    webhook: Annotated[str, typer.Option(metavar="URL", help="POST JSON to this address.")] = "",
    secret: Annotated[str, typer.Option(metavar="TEXT", help="Sign what a webhook is sent with it (HMAC-SHA256).")] = "",
    email: Annotated[list[str] | None, typer.Option(metavar="TO", help="Mail to this address; repeat it for more.")] = None,
    smtp: Annotated[
        str, typer.Option(metavar="URL", help="Its server: smtps://USER:PASSWORD@HOST:465, smtp://…:587 (STARTTLS).")
    ] = "",
    sender: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="Who the mail is from.")] = "",
    apprise: Annotated[str, typer.Option(metavar="URL", help="An address of apprise's, see https://appriseit.com.")] = "",
    severity: Annotated[str, typer.Option(help=f"Tell what is so bad or worse: {SEVERITY}.")] = "warning",
    devices: Annotated[str, typer.Option(metavar="GLOB", help="Tell of these devices only, such as 'room-*'.")] = "*",
    rule: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Tell of alarms of these rules only.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Tell these kinds of events [default: alarm.raised, alarm.cleared]."),
    ] = None,
    quiet: Annotated[str, typer.Option(metavar="FROM-TO", help="Tell nothing from 22:00-07:00 but a digest after it.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of quiet hours and messages, such as Europe/Berlin.")] = "UTC",
    through: Annotated[str, typer.Option(help="Tell what is so bad or worse in quiet hours, too.")] = "critical",
    window: Annotated[int, typer.Option(help="Gather messages for so many seconds after a first one.")] = 30,
    digest_above: Annotated[int, typer.Option(help="Make one message of what was gathered when it is more than this.")] = 5,
    per_hour: Annotated[int, typer.Option(help="Send so many messages within an hour, with the rest in digests.")] = 60,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Add a channel, or put one in the place of another of the same name.

    An address or a secret may be written @FILE: then it is what the file holds, and does not appear in the shell's history.
    """
    settings = Settings.load(data_dir=data_dir)
    try:
        channel = Channel(
            id=name,
            to=_far_end(_read(webhook), _read(secret), tuple(email or ()), _read(smtp), sender, _read(apprise)),
            severity=_severity("--severity", severity),
            devices=devices,
            rules=tuple(rule or ()),
            kinds=tuple(kind) if kind else ("alarm.raised", "alarm.cleared"),
            zone=zone,
            quiet=Quiet.of(quiet, _severity("--through", through)) if quiet else None,
            window=window,
            digest_above=digest_above,
            per_hour=per_hour,
        )
    except ValueError as error:
        raise SettingsError(f"channel {name!r} was not added: {error}") from error

    async def enter() -> None:
        async with client.connected(settings) as redis:
            await Channels(redis).put(channel)

    run(settings, enter())
    if as_json:
        print_json(channel.shown())
    else:
        print(f"added {name}: {channel.to.shown}; try it: isotherm notify test {name}")


@app.command("list")
def list_channels(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List every channel; of addresses only as much as is no secret."""
    settings = Settings.load(data_dir=data_dir)

    async def read() -> list[Channel]:
        async with client.connected(settings) as redis:
            return await Channels(redis).all()

    found = run(settings, read())
    if as_json:
        print_json([one.shown() for one in found])
    elif not found:
        print("there is no channel; try: isotherm notify add NAME --webhook URL")
    else:
        print_table(
            ("name", "kind", "to", "severity", "devices", "rules", "tells of", "quiet"),
            (
                (
                    one.id,
                    str(one.to.__struct_config__.tag),
                    one.to.shown,
                    one.severity,
                    one.devices,
                    ", ".join(one.rules) or "all",
                    ", ".join(one.kinds),
                    _hours(one),
                )
                for one in found
            ),
        )


@app.command()
def remove(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Forget a channel; what it has not told yet is told no more."""
    settings = Settings.load(data_dir=data_dir)

    async def forget() -> None:
        async with client.connected(settings) as redis:
            await Channels(redis).remove(name)

    run(settings, forget())
    if as_json:
        print_json({"removed": name})
    else:
        print(f"removed {name}")


@app.command()
def test(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Send a test message now, whatever the channel's filters and quiet hours, and say what the far end answered."""
    settings = Settings.load(data_dir=data_dir)

    async def attempt() -> tuple[Channel, str]:
        async with client.connected(settings) as redis:
            channel = await Channels(redis).get(name)
        return channel, await _try(channel)

    channel, answer = run(settings, attempt())
    if as_json:
        print_json({"channel": name, "to": channel.to.shown, "answer": answer})
    else:
        print(f"sent to {channel.to.shown}: {answer}")


@app.command()
def failed(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List what people were not told in the end, newest first, and what is being tried again."""
    settings = Settings.load(data_dir=data_dir)
    given_up, again = run(settings, _failed(settings))
    if as_json:
        print_json({"given_up": [_plain(one) for one in given_up], "tried_again": [_plain(one) for one in again]})
        return
    if not given_up and not again:
        print("everybody was told everything")
    for one in given_up:
        print_table(
            ("given up", "channel", "attempts", "messages", "error"),
            [(iso(one.given_up), one.channel, str(one.attempts), str(one.messages), one.error)],
        )
        print_table(("",), ((f"  {line}",) for line in one.lines))
    if again:
        print_table(
            ("tried again", "channel", "attempts", "messages", "error"),
            ((iso(one.retry_at), one.channel, str(one.attempts), str(one.size), one.error) for one in again),
        )


def _far_end(webhook: str, secret: str, email: tuple[str, ...], smtp: str, sender: str, apprise: str) -> Any:
    """Return the far end that the options name; raises ValueError when they do not name exactly one."""
    if [bool(webhook), bool(email), bool(apprise)].count(True) != 1:
        raise ValueError("expected one of --webhook URL, --email TO, --apprise URL")
    if secret and not webhook:
        raise ValueError("--secret signs what a webhook is sent, expected --webhook URL with it")
    if bool(smtp) != bool(email):
        raise ValueError("--email TO and --smtp URL need each other")
    if webhook:
        return Webhook(url=webhook, secret=secret)
    if email:
        return Email.through(smtp, to=email, sender=sender)
    from agents.notifications.channels.apprise_url import far_end
    from agents.notifications.channels.sender import Refused

    made = Apprise(url=apprise)
    try:
        far_end(apprise)
    except Refused as error:
        raise ValueError(str(error)) from error
    return made


def _read(text: str) -> str:
    """Return a text, or what the file holds that ``@FILE`` names; raises ValueError when it cannot be read."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{text[1:]} cannot be read: {error}") from error


def _severity(option: str, text: str) -> Severity:
    for one in SEVERITIES:
        if one == text:
            return one
    raise ValueError(f"{option} is {text!r}, expected {SEVERITY}")


def _hours(channel: Channel) -> str:
    if channel.quiet is None:
        return "never"
    return f"{channel.quiet.start}-{channel.quiet.end} {channel.zone}, {channel.quiet.through} gets through"


async def _try(channel: Channel) -> str:
    """Send a test message; returns the far end's answer.

    Raises:
        IsothermError: it was not taken.
    """
    from agents.notifications.channels import sender_of
    from agents.notifications.channels.sender import Refused, Unreached
    from agents.notifications.message import Delivery, Message, delivery_id

    now = now_us()
    event = Event(kind="test", device="isotherm", time=now, message=f"test message of isotherm to channel {channel.id}")
    messages = [Message.of(channel.id, event, at=now, order=0)]
    sender = sender_of(channel)
    try:
        async with asyncio.timeout(TEST_SECONDS):
            return channel.told(await sender.send(Delivery(delivery_id(messages), channel.id, messages, now)))
    except TimeoutError as error:
        raise IsothermError(f"{channel.to.shown} did not answer within {TEST_SECONDS:g} s") from error
    except (Refused, Unreached) as error:
        # Not chained: what it came from may hold secrets.
        raise IsothermError(f"{channel.to.shown} did not take it: {channel.told(error)}") from None
    finally:
        await sender.close()


async def _failed(settings: Settings) -> tuple[list[GivenUp], list[Bound]]:
    """Return what was given up, newest first, and what is being tried again, by its time."""
    from agents.notifications.router import Bound, GivenUp

    given_up: list[GivenUp] = []
    again: dict[str, Bound] = {}
    async with client.connected(settings) as redis:
        for partition in range(settings.partitions):
            with answering():
                rows = await redis.hgetall(layout.state_key(partition, ANALYTIC))
            given_up += _decoded(rows, b"failed:", GivenUp)
            again |= {one.id: one for one in _decoded(rows, b"delivery:", Bound) if one.attempts}
    given_up.sort(key=lambda one: one.given_up, reverse=True)
    return given_up, sorted(again.values(), key=lambda one: one.retry_at)


def _decoded(rows: dict[bytes, bytes], prefix: bytes, type: Any) -> Iterator[Any]:
    return (msgspec.msgpack.decode(row, type=type) for key, row in rows.items() if key.startswith(prefix))


def _plain(one: GivenUp | Bound) -> dict[str, Any]:
    fields = msgspec.structs.asdict(one)
    return fields | {name: iso(fields[name]) for name in ("at", "given_up", "retry_at") if name in fields}
