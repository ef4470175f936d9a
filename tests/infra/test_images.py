"""What is in the images, and what is not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.support import images
from tests.support.pod_images import BUILD, ROOT

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

MB = 1_000_000
MOST_BYTES = {"connector": 200 * MB, "simulator": 200 * MB, "worker": 260 * MB, "web": 640 * MB}


def load(name: str) -> ModuleType:
    """Return a program of infra/images as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"infra/images/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


requirements = load("requirements")
LOCK = requirements.parse((ROOT / "requirements.lock").read_text())


def test_the_parts_together_have_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {one.split(">")[0].split("[")[0] for one in project["dependencies"]}
    assert {package for part in requirements.PARTS.values() for package in part["packages"]} == needed
    assert requirements.of_image(LOCK, "gateway") == requirements.closure(LOCK, needed)


def test_a_layer_has_what_the_one_below_has_not_and_keeps_its_hashes() -> None:
    worker, connector = requirements.of_layer(LOCK, "worker"), requirements.of_image(LOCK, "connector")
    assert "faust-streaming" in worker and "mode-streaming" in worker and not worker & connector
    assert all("--hash=sha256:" in LOCK[package][0] for package in worker)


def test_a_package_that_is_not_in_the_lock_is_named() -> None:
    with pytest.raises(KeyError, match="flask is not in the lock"):
        requirements.closure(LOCK, ["flask"])


def test_an_image_that_there_is_not_is_refused_before_anything_is_built() -> None:
    done = subprocess.run([BUILD, "connector", "conector"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("There is no image conector: expected connector, simulator, worker, web, gateway")


@pytest.mark.parametrize("part", MOST_BYTES)
def test_an_image_is_small_and_has_neither_root_nor_shell(registry: str, part: str) -> None:
    known = inspect(registry, part)
    assert known["Size"] <= MOST_BYTES[part]
    assert known["Config"]["User"] == "65532:65532"
    labels = known["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"isotherm-{part}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    with mounted(registry, part) as root:
        assert not [name for name in ("sh", "bash", "dash", "apt-get", "dpkg") if any(root.glob(f"**/bin/{name}"))]


@pytest.mark.parametrize("part", ["connector", "worker"])
def test_connectors_and_workers_have_no_pandas(registry: str, part: str) -> None:
    with mounted(registry, part) as root:
        assert not list(root.glob("opt/isotherm/*/pandas*"))


@pytest.mark.parametrize("part", MOST_BYTES)
def test_the_bill_of_materials_is_valid_and_names_what_is_there(registry: str, part: str) -> None:
    with mounted(registry, part) as root:
        bill = (root / "usr/share/sbom/isotherm.cdx.json").read_text()
        there = {path.name.split("-")[0].lower() for path in root.glob("opt/isotherm/*/*.dist-info")}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = json.loads(bill)["components"]
    pypi = {one["name"].replace("-", "_").replace(".", "_") for one in components if one["purl"].startswith("pkg:pypi/")}
    assert pypi == {name.replace(".", "_") for name in there}
    assert {"libc6", "libssl3", "python3.11-minimal"} <= {one["name"] for one in components}


def inspect(registry: str, part: str) -> dict[str, Any]:
    """Return what podman knows of an image."""
    (found,) = json.loads(images.podman("image", "inspect", name(registry, part)))
    return dict(found)


def name(registry: str, part: str) -> str:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return f"{registry}/isotherm-{part}:{version}"


@contextmanager
def mounted(registry: str, part: str) -> Iterator[Path]:
    """The files of an image."""
    image = name(registry, part)
    root = Path(images.podman("image", "mount", image).strip())
    try:
        yield root
    finally:
        images.podman("image", "unmount", image)
