"""``isotherm backup`` and ``isotherm restore``: the registry into a file, and back."""

from __future__ import annotations

import getpass
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import on_the_server, print_json, progress, run
from isotherm.errors import IsothermError, SettingsError
from isotherm.settings import Settings

if TYPE_CHECKING:
    from isotherm.backup.file import Writer
    from isotherm.backup.restore import Checked
    from isotherm.backup.take import Contents

MODE = 0o600
"""It has hashes of passwords and tokens, and channels' secrets in clear."""

_NAME = re.compile(r"isotherm-registry-\d{8}T\d{6}\.\d{6}Z\.jsonl\.gz")


def backup(
    file: Annotated[
        str, typer.Argument(help="Where to, such as registry.jsonl.gz; a folder, with / at its end: a new file in it.")
    ],
    keep: Annotated[
        int | None, typer.Option(help="In a folder: remove the oldest backups, so that so many are left.", min=1)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write the registry to a file: devices, users, tokens, rules, alarms and what else people have entered.

    docs/backup.md says what is in it and what is not: readings are not, which `isotherm export` writes. The file has hashes
    of passwords and tokens, and the secrets of notification channels in clear: only its owner may read it.
    """
    from isotherm.backup.file import Writer
    from isotherm.backup.take import take
    from isotherm.new_file import NewFile
    from isotherm.store import client

    folder = Path(file) if file.endswith("/") or Path(file).is_dir() else None
    if keep is not None and folder is None:
        raise typer.BadParameter(f"{file} is no folder; write {file}/", param_hint="--keep")
    if folder is not None and not folder.is_dir():
        raise SettingsError(f"{folder} is no folder: create or mount it first")
    settings = on_the_server(Settings.load(data_dir=data_dir))
    now = datetime.now(UTC)
    path = Path(file) if folder is None else folder / f"isotherm-registry-{now:%Y%m%dT%H%M%S.%fZ}.jsonl.gz"

    async def write(writer: Writer) -> Contents:
        async with client.connected(settings) as redis:
            with progress("backing up") as advance:
                contents = await take(redis, settings.partitions, writer, advance)
            writer.close()
            return contents

    try:
        new = NewFile(path, replace=force, mode=MODE)
        with new as out:
            contents = run(settings, write(Writer(out, created=now.isoformat(), partitions=settings.partitions)))
        removed = _prune(folder, keep) if folder is not None and keep is not None else []
    except OSError as error:
        raise IsothermError(f"{path} cannot be written: {error.strerror}") from error
    _warn(contents)
    if as_json:
        print_json(
            {
                "file": str(path),
                "bytes": new.bytes,
                "keys": contents.keys,
                "counts": dict(contents.counts),
                "removed": [str(one) for one in removed],
            }
        )
    else:
        print(f"{path}: {_told(contents)}, {new.bytes:,} bytes")
        for one in removed:
            print(f"removed {one}")


def _prune(folder: Path, keep: int) -> list[Path]:
    """Remove the oldest backups, and what one that was killed has left; names are ascending in time."""
    from isotherm.new_file import PART_SUFFIX

    backups = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    newest = backups[-1].name
    parts = [
        path for path in folder.iterdir() if path.suffix == PART_SUFFIX and _NAME.fullmatch(path.stem) and path.name < newest
    ]
    for path in [*backups[:-keep], *parts]:
        path.unlink(missing_ok=True)
    return backups[:-keep]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _warn(contents: Contents) -> None:
    if contents.is_torn:
        _say("isotherm: the registry was changed while it was read; what was changed just then may be half there")
    if contents.unknown:
        some = ", ".join(key.decode(errors="backslashreplace") for key in contents.unknown[:3])
        _say(
            f"isotherm: {len(contents.unknown)} keys are unknown to this version and left out, such as {some}; "
            "back up with the Isotherm that wrote them"
        )


def _told(contents: Contents) -> str:
    counts = [f"{count:,} {what}" for what, count in contents.counts.items() if count]
    return f"{', '.join(counts)} in {contents.keys:,} keys"


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `isotherm backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the registry that the store has; that is lost.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put the registry of a file into a store that has none.

    The whole file is checked first. What was revoked or removed after the backup was made is there again: tokens, too. The
    audit log alone is merged with the store's. Stop connectors, workers and web before, or start them anew afterwards.
    """
    from isotherm.accounts.audit import Audit
    from isotherm.backup.restore import check
    from isotherm.backup.restore import restore as put_back
    from isotherm.store import client

    settings = on_the_server(Settings.load(data_dir=data_dir))
    with progress("checking") as advance:
        checked = check(file, settings.partitions, advance)

    async def put() -> bool:
        async with client.connected(settings) as redis:
            with progress("restoring") as advance:
                replaced = await put_back(redis, checked, replace=replace, advance=advance)
            await Audit(redis).write(f"cli ({getpass.getuser()})", "restore registry", file.name, address="cli")
            return replaced

    try:
        replaced = run(settings, put())
    except KeyboardInterrupt:
        _say(f"interrupted: the registry may be half restored; do it again: isotherm restore {file} --replace")
        raise typer.Exit(130) from None
    _say_restored(checked, replaced, as_json)


def _say_restored(checked: Checked, replaced: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "file": str(checked.path),
                "created": checked.head.created,
                "isotherm": checked.head.isotherm,
                "keys": checked.contents.keys,
                "counts": dict(checked.contents.counts),
                "replaced": replaced,
            }
        )
    else:
        print(f"restored {_told(checked.contents)}, of {checked.head.created}")
