"""What the manifests promise, read off what kustomize makes of them: schemas, and that what is named is there."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from isotherm.settings import PREFIX, Settings
from tests.infra.conftest import add_components
from tests.support import apache_kafka
from tests.support.manifests import (
    K8S,
    SCALERS,
    Document,
    bounds,
    least_of,
    load_deploy,
    matches,
    named,
    pod_of,
    render,
    workloads,
)

VERSIONS = ("1.33", "1.35", "1.37")
"""Of Kubernetes: what is out there, and the newest."""

OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())
IN_PLACE_OF = {"strimzi": "kafka", "emqx": "mosquitto"}
CUSTOM = ("ScaledObject", "ServiceMonitor", "Kafka", "KafkaNodePool")
"""Kinds of operators, whose schemas Kubernetes does not have."""

SYSTEM_CPUS, SYSTEM_MEBIBYTES = 300, 768
"""What a node's system and k3s take, and an exchange beside them; CPUs in thousandths."""

QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The overlay ``cluster`` with every component that it has not."""
    folder = tmp_path_factory.mktemp("whole") / "infra"
    shutil.copytree(K8S, folder / "k8s")
    shutil.copytree(K8S.parent / "grafana", folder / "grafana")
    overlay = folder / "k8s/overlays/cluster"
    has = set(re.findall(r"^  - \.\./\.\./components/(\S+)$", (overlay / "kustomization.yaml").read_text(), re.MULTILINE))
    return render(
        add_components(overlay, *sorted(set(COMPONENTS) - has - set(IN_PLACE_OF) - {"mirror", "process"}), "mirror")
    )


@pytest.fixture(params=[*OVERLAYS, "whole", *IN_PLACE_OF])
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> list[Document]:
    if request.param == "whole":
        found: list[Document] = request.getfixturevalue("whole")
        return found
    if request.param in OVERLAYS:
        return render(K8S / "overlays" / request.param)
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/cluster"
    kustomization = overlay / "kustomization.yaml"
    kustomization.write_text(
        kustomization.read_text().replace(
            f"  - ../../components/{IN_PLACE_OF[request.param]}\n", f"  - ../../components/{request.param}\n"
        )
    )
    return render(overlay)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_keeps_to_the_schema(documents: list[Document], version: str) -> None:
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)


def test_every_component_is_tried_here(whole: list[Document]) -> None:
    tried = {one["metadata"]["labels"].get("app.kubernetes.io/component") for one in whole if "labels" in one["metadata"]}
    assert tried >= {"tcp", "http", "coap", "mqtt", "worker", "analytics", "web", "kafka", "valkey", "valkey-replica"}
    assert tried >= {"mosquitto", "simulator", "headlamp", "backup", "analytic-presence", "metrics"}
    assert {one["kind"] for one in whole} >= {"HorizontalPodAutoscaler", "Ingress", "ScaledObject", "ServiceMonitor"}


def test_a_service_selects_pods_and_its_ports_are_theirs(documents: list[Document]) -> None:
    for service in (one for one in documents if one["kind"] == "Service"):
        selected = [
            pod_of(one)
            for one in workloads(documents)
            if service["spec"]["selector"].items() <= pod_of(one)["metadata"]["labels"].items()
        ]
        assert selected, service["metadata"]["name"]
        for pod in selected:
            ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
            known = {port.get("name"): port for port in ports} | {port["containerPort"]: port for port in ports}
            for port in service["spec"]["ports"]:
                target = known.get(port["targetPort"])
                if "tls" in port["name"]:
                    continue  # listeners that a component adds: the ports are those of the settings
                assert target, f"{service['metadata']['name']}: {port}"
                assert target.get("protocol", "TCP") == port.get("protocol", "TCP")


def test_ports_are_those_of_the_settings(documents: list[Document]) -> None:
    own = {value.default for name, value in Settings.model_fields.items() if name.endswith("_port")} | {7390, 7303}
    for workload in workloads(documents):
        for container in pod_of(workload)["spec"]["containers"]:
            if "isotherm-" in container["image"]:
                assert {port["containerPort"] for port in container.get("ports", ())} <= own


def test_selectors_select_their_own_pods_and_no_others(documents: list[Document]) -> None:
    for owner in workloads(documents):
        if "selector" in owner["spec"]:
            chosen = [
                one for one in workloads(documents) if matches(owner["spec"]["selector"], pod_of(one)["metadata"]["labels"])
            ]
            assert [one["metadata"]["name"] for one in chosen] == [owner["metadata"]["name"]]
    for budget in (one for one in documents if one["kind"] == "PodDisruptionBudget"):
        chosen = [
            one for one in workloads(documents) if matches(budget["spec"]["selector"], pod_of(one)["metadata"]["labels"])
        ]
        assert [one["metadata"]["name"] for one in chosen] == [budget["metadata"]["name"]]


def test_scalers_scale_something_and_nobody_scales_what_divides_devices(documents: list[Document]) -> None:
    for scaler in (one for one in documents if one["kind"] in SCALERS):
        target = scaler["spec"]["scaleTargetRef"]
        assert named(documents, target.get("kind", "Deployment"), target["name"])
        assert target["name"] != "isotherm-mqtt"
        low, high = bounds(scaler)
        assert 1 <= low <= high


def test_what_pods_mount_and_read_is_there(documents: list[Document]) -> None:
    deploy = load_deploy()
    maps = {one["metadata"]["name"] for one in documents if one["kind"] == "ConfigMap"}
    claims = {one["metadata"]["name"] for one in documents if one["kind"] == "PersistentVolumeClaim"}
    for workload in workloads(documents):
        spec = pod_of(workload)["spec"]
        templates = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}
        volumes = {one["name"] for one in spec.get("volumes", ())} | templates
        for volume in spec.get("volumes", ()):
            if "configMap" in volume and not volume["configMap"].get("optional"):
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert {one["name"] for one in container.get("volumeMounts", ())} <= volumes
            assert {one["configMapRef"]["name"] for one in container.get("envFrom", ())} <= maps
    others = deploy.secrets_of(documents) - set(deploy.made_secrets(documents))
    assert others <= {"isotherm-tls", "isotherm-device-tls", "emqx"}, "docs/operations.md says what is in these"


def test_every_pod_is_restricted_probed_and_has_bounds(documents: list[Document]) -> None:
    for workload in workloads(documents):
        name, spec = workload["metadata"]["name"], pod_of(workload)["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            own = container["securityContext"]
            assert own["capabilities"] == {"drop": ["ALL"]} and not own["allowPrivilegeEscalation"], name
            assert own.get("readOnlyRootFilesystem") or "emqx" in name, name
            for amount in (*container["resources"]["requests"].values(), container["resources"]["limits"]["memory"]):
                assert QUANTITY.fullmatch(amount), name
        listening = [one for one in spec["containers"] if one.get("ports")]
        assert all("readinessProbe" in one and "livenessProbe" in one for one in listening), name


def test_variables_are_settings(documents: list[Document]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for document in documents:
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("isotherm-"):
            assert {name for name in document["data"] if name.isupper()} <= known
    for workload in workloads(documents):
        for container in pod_of(workload)["spec"]["containers"]:
            given = {one["name"] for one in container.get("env", ()) if one["name"].startswith(PREFIX)}
            assert given <= known


def test_of_everything_that_counts_there_are_two_on_a_cluster() -> None:
    cluster = render(K8S / "overlays/cluster")
    for workload in workloads(cluster):
        name = workload["metadata"]["name"]
        if workload["kind"] in ("Deployment", "StatefulSet") and name not in ("valkey", "valkey-replica", "mosquitto"):
            assert least_of(workload, cluster) >= 2, name
            assert named(cluster, "PodDisruptionBudget", name)
    mqtt = pod_of(named(cluster, "StatefulSet", "isotherm-mqtt"))["spec"]["containers"][0]
    (workers,) = [one["value"] for one in mqtt["env"] if one["name"] == "ISOTHERM_MQTT_WORKERS"]
    assert int(workers) == named(cluster, "StatefulSet", "isotherm-mqtt")["spec"]["replicas"]


def test_a_cluster_of_three_nodes_of_two_cpus_and_four_gib_can_do_without_one() -> None:
    cpus, mebibytes = 0, 0
    cluster = render(K8S / "overlays/cluster")
    for one in workloads(cluster):
        if one["kind"] in ("Deployment", "StatefulSet"):
            asked = [container["resources"]["requests"] for container in pod_of(one)["spec"]["containers"]]
            # A broker stays away with its volume.
            count = least_of(one, cluster) - (one["metadata"]["name"] == "kafka")
            cpus += count * sum(int(each["cpu"].removesuffix("m")) for each in asked)
            mebibytes += count * sum(_mebibytes(each["memory"]) for each in asked)
    assert cpus <= 2 * (2000 - SYSTEM_CPUS)
    assert mebibytes <= 2 * (4096 - SYSTEM_MEBIBYTES)


def _mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def test_who_keeps_nothing_is_started_elsewhere_half_a_minute_after_its_node_is_known_to_be_lost() -> None:
    for one in workloads(render(K8S / "overlays/cluster")):
        if one["kind"] == "Deployment":
            tolerated = {each["key"]: each["tolerationSeconds"] for each in pod_of(one)["spec"]["tolerations"]}
            assert tolerated == dict.fromkeys(("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"), 30)


def test_images_are_ours_or_pinned_and_the_version_is_that_of_the_project(documents: list[Document]) -> None:
    version = tomllib.loads((K8S.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    for workload in workloads(documents):
        for container in pod_of(workload)["spec"]["containers"]:
            image, _, tag = container["image"].rpartition(":")
            assert tag and tag != "latest"
            if "isotherm-" in image:
                assert tag == version
                assert image.removesuffix(re.split("isotherm-", image)[1]) in (
                    "localhost/isotherm-",
                    "registry.example:5000/isotherm-",
                )


def test_one_setting_has_all_images_come_from_one_registry(whole: list[Document]) -> None:
    for workload in workloads(whole):
        spec = pod_of(workload)["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["image"].startswith("registry.example:5000/"), workload["metadata"]["name"]
            assert "localhost" not in container["image"]


def test_kafka_is_the_one_that_the_tests_ran_with() -> None:
    if reason := apache_kafka.available():
        pytest.skip(reason)
    image = pod_of(named(render(K8S / "overlays/local"), "StatefulSet", "kafka"))["spec"]["containers"][0]["image"]
    assert any(apache_kafka.LIBS.glob(f"kafka-clients-{image.rpartition(':')[2]}.jar"))


def test_workers_are_scaled_by_what_a_web_pod_tells_keda(whole: list[Document]) -> None:
    scaled = named(whole, "ScaledObject", "isotherm-worker")
    (trigger,) = scaled["spec"]["triggers"]
    url = urlsplit(trigger["metadata"]["url"])
    service, namespace = str(url.hostname).split(".")
    assert namespace == load_deploy().namespace_of(whole)
    assert (url.path, trigger["metadata"]["valueLocation"]) == ("/lag", "records"), "what dashboards/process.py serves"
    found = named(whole, "Service", service)
    assert [one["port"] for one in found["spec"]["ports"]] == [url.port]
    web = pod_of(named(whole, "Deployment", "isotherm-web"))
    assert found["spec"]["selector"].items() <= web["metadata"]["labels"].items()
    policy = named(whole, "NetworkPolicy", "keda")["spec"]
    assert matches(policy["podSelector"], web["metadata"]["labels"])
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": url.port}]


def test_there_are_never_more_workers_than_partitions(whole: list[Document]) -> None:
    partitions = {
        int(one["data"]["ISOTHERM_PARTITIONS"])
        for one in whole
        if one["kind"] == "ConfigMap" and "ISOTHERM_PARTITIONS" in one.get("data", ())
    }
    assert partitions == {named(whole, "ScaledObject", "isotherm-worker")["spec"]["maxReplicaCount"]}


def test_what_is_scaled_has_no_number_of_its_own_to_which_a_deploy_would_bring_it_back(whole: list[Document]) -> None:
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in whole if one["kind"] in SCALERS]
    assert len(targets) == 5
    for name in targets:
        assert "replicas" not in named(whole, "Deployment", name)["spec"], name
