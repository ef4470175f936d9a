"""Container images for tests: a Debian of debootstrap's making, and what is built upon it. None is fetched from a registry.

An image is made once on a machine and kept: its name tells what it was made of. Of several processes that need it, one makes
it, and the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RELEASE = "bookworm"
BASE = "localhost/isotherm-test/debian:12"
# Wins over the machine's own settings, which often want systemd.
ENVIRONMENT = {"CONTAINERS_CONF": str(Path(__file__).with_name("containers.conf"))}

LOCK = Path(tempfile.gettempdir()) / "isotherm-test-images.lock"
PODMAN = shutil.which("podman") or "podman"
PROGRAMS = ("podman", "buildah", "runc", "debootstrap")
BUILD_SECONDS = 600.0
TAIL_LINES = 20


def available() -> str | None:
    """Say why no image can be made here, or None when it can."""
    if os.geteuid() != 0:
        return "images are made as root only"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed; see tests/prepare.sh" if absent else None


def podman(*arguments: str) -> str:
    """Run podman and return what it prints; raises RuntimeError with the end of its output when it fails."""
    return _run(PODMAN, *arguments)


def debian_base() -> str:
    """Return the name of a minimal Debian 12; the first time on a machine that takes about a minute."""
    with _making(BASE) as absent:
        if absent:
            _bootstrap()
    return BASE


def built(
    name: str, folder: Path, *, containerfile: str = "Containerfile", arguments: Mapping[str, str] | None = None
) -> str:
    """Return the name of the image that this folder builds, tagged by the hash of what goes into it.

    Args:
        arguments: Build arguments; BASE is debian_base() unless given.
    """
    arguments = {"BASE": BASE, **(arguments or {})}
    if arguments["BASE"] == BASE:
        debian_base()
    image = f"localhost/isotherm-test/{name}:{_content_hash(folder, containerfile, arguments)}"
    with _making(image) as absent:
        if absent:
            options = [f"--build-arg={key}={value}" for key, value in sorted(arguments.items())]
            file = str(folder / containerfile)
            _run(
                "buildah",
                "bud",
                "--network=host",
                "--isolation=chroot",
                *options,
                f"--tag={image}",
                f"--file={file}",
                str(folder),
            )
    return image


@contextmanager
def _making(image: str) -> Iterator[bool]:
    """Hold the lock; the value says whether the image is still to be made."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        exists = subprocess.run(["podman", "image", "exists", image], env=os.environ | ENVIRONMENT, check=False)
        yield exists.returncode != 0


def _bootstrap() -> None:
    with tempfile.TemporaryDirectory(prefix="isotherm-debian-") as folder:
        root, archive = Path(folder, "root"), Path(folder, "root.tar")
        # In a mount namespace of its own: what it mounts goes when it is killed.
        _run("unshare", "--mount", "debootstrap", "--variant=minbase", RELEASE, str(root), *_mirror())
        shutil.rmtree(root / "var/cache/apt/archives")
        _run("tar", "--create", f"--directory={root}", f"--file={archive}", "--one-file-system", ".")
        podman("import", "--change=CMD=/bin/bash", str(archive), BASE)


def _mirror() -> list[str]:
    """Where this machine's apt finds the release, for debootstrap's own choice may be out of reach."""
    if shutil.which("apt-get") is None:
        return []
    wanted = ("Created-By: Packages", f"Codename: {RELEASE}", "Component: main")
    found = _run("apt-get", "indextargets", "--format=$(REPO_URI)", *wanted).split()
    return found[:1]


def _content_hash(folder: Path, containerfile: str, arguments: Mapping[str, str]) -> str:
    content = hashlib.sha256(repr((containerfile, sorted(arguments.items()))).encode())
    ignored = folder / ".containerignore"
    names = ignored.read_text().splitlines() if ignored.exists() else []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in names):
        mode = path.stat().st_mode & 0o111
        content.update(f"{path.relative_to(folder)} {mode} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:16]


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:])
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{tail}")
    return done.stdout
