"""infra/compose.yaml: the same servers, parts and settings as on a cluster."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import yaml

from isotherm.settings import PREFIX, Settings
from tests.support.manifests import K8S, pod_of, render, workloads

COMPOSE = K8S.parent / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]


def test_images_are_those_of_the_manifests() -> None:
    known = {
        container["image"]
        for one in workloads(render(K8S / "overlays/local"))
        for container in pod_of(one)["spec"]["containers"]
    }
    ours, others = "${REGISTRY:-localhost}/", "${REGISTRY:+${REGISTRY}/}"
    assert {one["image"].replace(ours, "localhost/").replace(others, "") for one in SERVICES.values()} == known
    assert all(("isotherm-" in one["image"]) == (ours in one["image"]) for one in SERVICES.values())


def test_every_part_runs_and_is_asked_how_it_is() -> None:
    assert {"tcp", "http", "coap", "mqtt", "worker", "analytics", "web", "topics", "simulator"} <= set(SERVICES)
    for name, service in SERVICES.items():
        assert "test" in service["healthcheck"] or service["healthcheck"]["disable"], name


def test_nothing_may_write_to_its_root_or_has_rights() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "isotherm-" in service["image"] or not service["user"].startswith("0"), name


def test_what_is_mounted_of_ours_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (COMPOSE.parent / source).is_file(), f"{name} mounts {source}"


def test_nothing_shares_processes_or_a_network_with_what_may_be_restarted() -> None:
    # The engine starts what it restarts in any order, and what it could not start once it does not try again.
    for name, service in SERVICES.items():
        assert not {"pid", "network_mode", "ipc"} & set(service), name


def test_ports_are_open_on_this_machine_alone_and_variables_are_settings() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert {one for one in service.get("environment", {}) if one.startswith(PREFIX)} <= known


def test_what_is_waited_for_is_there_and_can_say_that_it_is() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], f"{name} waits for {other}"
            elif condition["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", f"{name} waits for {other}"


def test_passwords_are_made_once_and_by_chance(tmp_path: Path) -> None:
    program = tmp_path / "compose-secrets"
    program.write_bytes((COMPOSE.parent / "compose-secrets").read_bytes())
    program.chmod(0o755)
    subprocess.run([program], check=True, env={"PATH": os.environ["PATH"]})
    made = {path.name: path.read_text() for path in (tmp_path / ".secrets").iterdir()}
    subprocess.run([program], check=True, env={"PATH": os.environ["PATH"]})
    assert {path.name: path.read_text() for path in (tmp_path / ".secrets").iterdir()} == made
    (tmp_path / ".secrets/CLUSTER_ID").unlink()
    refused = subprocess.run([program], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("infra/.secrets has no CLUSTER_ID: take down what runs")
    assert len(made["CLUSTER_ID"].strip()) == 22, "sixteen bytes"
    password = made["ISOTHERM_REDIS"].split(":")[2].split("@")[0]
    assert len(password) == 48 and f"requirepass {password}\n" in made["password.conf"]
    assert stat.S_IMODE((tmp_path / ".secrets").stat().st_mode) == 0o700
    assert {source["file"] for source in yaml.safe_load(COMPOSE.read_text())["secrets"].values()} == {
        f".secrets/{name}" for name in made
    }
