"""Images of this checkout and of the servers beside it, built by infra/images/build and named by their content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import images

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "infra/images/build"
PARTS = ("connector", "worker", "web", "simulator", "valkey", "mosquitto", "kafka")
FOLDERS = ("isotherm", "connectors", "agents", "dashboards", "simulator", "infra/images")
PREFIX = "localhost/isotherm-test-of-"
LOCK = Path(tempfile.gettempdir()) / "isotherm-test-pod-images.lock"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def registry(*parts: str) -> str:
    """Return the registry in whose name the images of this checkout are; builds what is missing."""
    name = f"{PREFIX}{_content()}"
    images.debian_base()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one builds, the others find it built
        known = images.podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        for part in parts or PARTS:
            if not any(one.startswith(f"{name}/") and one.partition(":")[0].endswith(part) for one in known):
                build(part, registry=name)
        for old in (one for one in known if one.startswith(PREFIX) and not one.startswith(f"{name}/")):
            with contextlib.suppress(RuntimeError):  # another run may use it
                images.podman("image", "rm", old)
    return name


def build(*parts: str, registry: str, **environment: str) -> str:
    """Run infra/images/build as on a machine that reaches no hub, and return what it printed."""
    options = (
        "--network=host",
        "--isolation=chroot",
        # A network may have an authority of its own.
        f"--volume={CERTIFICATES}:/etc/ssl/of-the-machine.crt:ro",
        "--build-arg=PIP_CERT=/etc/ssl/of-the-machine.crt",
    )
    own = {"BASE": images.debian_base(), "REGISTRY": registry, "OPTIONS": " ".join(options), **environment}
    done = subprocess.run(
        [BUILD, *parts],
        env=os.environ | images.ENVIRONMENT | own,
        capture_output=True,
        text=True,
        timeout=images.BUILD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{BUILD} {' '.join(parts)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def _content() -> str:
    content = hashlib.sha256()
    for path in sorted(_sources()):
        content.update(f"{path.relative_to(ROOT)} {path.stat().st_mode & 0o111} ".encode() + path.read_bytes())
    return content.hexdigest()[:12]


def _sources() -> Iterator[Path]:
    yield ROOT / "requirements.lock"
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
