"""The image of virtual hosts, upon a Debian: built once on a machine."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.hosts.podman import forget_rules
from tests.support import images

FOLDER = Path(__file__).parents[2] / "infra" / "hosts"


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """Name of the image; meanwhile podman has the settings of the tests."""
    if reason := images.available():
        missing(f"virtual hosts on podman: {reason}")
    before = os.environ.get("CONTAINERS_CONF")
    os.environ |= images.ENVIRONMENT
    atexit.register(forget_rules)  # an interrupted run may not come to the end of this
    yield images.built("host", FOLDER)
    forget_rules()
    if before is None:
        del os.environ["CONTAINERS_CONF"]
    else:
        os.environ["CONTAINERS_CONF"] = before
