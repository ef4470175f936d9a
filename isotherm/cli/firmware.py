"""``isotherm firmware``: make and sign images, say whose are taken, and give them to the platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from isotherm.cli.options import AsJson, DataDir
from isotherm.cli.output import print_json, print_table, since
from isotherm.cli.server import plain, served
from isotherm.errors import SettingsError
from isotherm.settings import Settings

READ, WRITE, TRUST = "firmware:read", "firmware:write", "firmware-keys:write"

Name = Annotated[str, typer.Argument(help="NAME/VERSION, such as thermostat/1.2.0.", metavar="NAME/VERSION")]
KeyFile = Annotated[Path, typer.Option(help="Private key, from `isotherm firmware new-key`.", exists=True, dir_okay=False)]

app = typer.Typer(no_args_is_help=True, help="Images of firmware that are signed; `isotherm rollout` gives them to devices.")


@app.command()
def new_key(path: Annotated[Path, typer.Argument(help="Where the private key is written; keep it to yourself.")]) -> None:
    """Make a key to sign images with, and print its public half, which `isotherm firmware trust` takes."""
    from isotherm.firmware.signing import key_to_pem, new_key, public_of

    key = new_key()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key_to_pem(key))
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
    print(public_of(key))


@app.command()
def trust(
    public: Annotated[str, typer.Argument(help="Public key, as `isotherm firmware new-key` prints it.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take images from now on that are signed with a key."""
    with served(Settings.load(data_dir=data_dir), TRUST) as api:
        found = api.trust_key(public)
    if as_json:
        print_json(plain(found))
    else:
        print(f"images that are signed with {found.id} are taken")


@app.command()
def distrust(
    id: Annotated[str, typer.Argument(help="Of the key, from `isotherm firmware keys`.")], data_dir: DataDir = None
) -> None:
    """Take no more images that are signed with a key."""
    with served(Settings.load(data_dir=data_dir), TRUST) as api:
        api.distrust_key(id)
    print(f"images that are signed with {id} are refused")


@app.command()
def keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the keys whose images are taken."""
    with served(Settings.load(data_dir=data_dir), READ) as api:
        found = list(api.firmware_keys())
    if as_json:
        print_json([plain(one) for one in found])
    elif not found:
        print("no key is trusted; try: isotherm firmware trust $(isotherm firmware new-key firmware.pem)")
    else:
        print_table(["id", "public key"], [[one.id, one.public] for one in found])


@app.command()
def upload(
    image: Name,
    path: Annotated[Path, typer.Argument(help="The image.", exists=True, dir_okay=False)],
    key: KeyFile,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Sign an image here, and give it to the platform. The key is not sent."""
    from isotherm.firmware.signing import key_from_pem, signed

    name, version = _parts(image)
    data = path.read_bytes()
    made = signed(key_from_pem(key.read_bytes()), name, version, data)
    with served(Settings.load(data_dir=data_dir), WRITE) as api:
        found = api.upload_image(name, version, data, made.signature)
    if as_json:
        print_json(plain(found))
    else:
        print(f"{name}/{version}: {found.size:,} bytes, SHA-256 {found.sha256}")


@app.command("list")
def list_images(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the images, ascending by name and version."""
    with served(Settings.load(data_dir=data_dir), READ) as api:
        found = list(api.firmware())
    if as_json:
        print_json([plain(one) for one in found])
    elif not found:
        print("there is no image; try: isotherm firmware upload thermostat/1.2.0 FILE --key firmware.pem")
    else:
        rows = [[f"{one.name}/{one.version}", f"{one.size:,}", one.key, since(one.created), one.by] for one in found]
        print_table(["image", "bytes", "key", "uploaded", "by"], rows)


@app.command()
def remove(image: Name, data_dir: DataDir = None) -> None:
    """Forget an image: devices can load it no longer."""
    name, version = _parts(image)
    with served(Settings.load(data_dir=data_dir), WRITE) as api:
        api.remove_image(name, version)
    print(f"removed {name}/{version}")


def _parts(image: str) -> tuple[str, str]:
    name, slash, version = image.partition("/")
    if not slash or not name or not version:
        raise typer.BadParameter(f"{image!r}, expected NAME/VERSION")
    return name, version
