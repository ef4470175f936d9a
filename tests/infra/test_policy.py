"""checkov's policies for Kubernetes over all that is rendered, but for those that are not meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import missing
from tests.support.manifests import K8S, render

CHECKOV = K8S.parents[1] / ".checkov/bin/checkov"

NOT_MEANT = {
    "CKV_K8S_43": "images are named by version, not digest: who mirrors them pins the digests of the mirror",
    "CKV_K8S_15": "IfNotPresent: images may have been brought to the node by hand, and versions do not change",
    "CKV_K8S_11": "no CPU limits: they slow down a process that could use an idle core; requests share fairly",
    ("CKV_K8S_8", "Deployment.isotherm.isotherm-simulator"): "serves nobody; when it fails it ends",
    ("CKV_K8S_9", "Deployment.isotherm.isotherm-simulator"): "serves nobody",
    "CKV_K8S_40": "other people's servers run as the users that their images were made for: 999, 1000, 1883",
}


@pytest.mark.parametrize("overlay", sorted(folder.name for folder in (K8S / "overlays").iterdir()))
def test_rendered_manifests_keep_to_the_policies(overlay: str, tmp_path: Path) -> None:
    if not CHECKOV.exists():
        missing("checkov is not installed; see tests/prepare.sh")
    manifest = tmp_path / "all.yaml"
    manifest.write_text(yaml.safe_dump_all(render(K8S / "overlays" / overlay)))
    command = [str(CHECKOV), "--skip-download", "--framework", "kubernetes", "--compact", "--output", "json"]
    said = subprocess.run(
        [*command, "--file", str(manifest)], capture_output=True, text=True, timeout=120, check=False
    ).stdout
    results = json.loads(said)["results"]
    assert len(results["passed_checks"]) > 50
    failed = {(one["check_id"], one["resource"]): one["check_name"] for one in results["failed_checks"]}
    assert {one: failed[one] for one in failed if one not in NOT_MEANT and one[0] not in NOT_MEANT} == {}
