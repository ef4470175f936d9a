"""The Kubernetes objects of a virtual host: of the strict schema, bound to each other, and as closed as they say."""

from __future__ import annotations

import base64
import doctest
import ipaddress
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from typer.testing import CliRunner

from isotherm.cli import app
from isotherm.errors import SettingsError
from isotherm.hosts import Spec, host, manifests
from isotherm.hosts.host import CAPABILITIES, GIB, checked
from isotherm.hosts.manifests import Object, Surroundings
from isotherm.settings import Settings
from tests.contracts.hosts import ADA
from tests.support.kubernetes_api import VERSION

SPEC = Spec(name="lab-1", user="zoë@example.org", cpus=0.5, memory=GIB, disk=5 * GIB, keys=(ADA,))
FOLDER = Path(__file__).parents[2] / "infra" / "hosts"


@pytest.fixture
def objects() -> list[Object]:
    return manifests.manifests(SPEC, Surroundings.of(Settings(hosts_storage_class="fast")))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def test_each_is_of_the_strict_schema(objects: list[Object]) -> None:
    for one in objects:
        kubernetes_validate.validate(one, VERSION, strict=True)
    assert [one["kind"] for one in objects][:1] == ["Namespace"]
    assert len(objects) == 10


def test_each_lies_in_the_namespace_and_says_whose_it_is(objects: list[Object]) -> None:
    namespace = objects[0]["metadata"]["name"]
    assert namespace == "isotherm-host-lab-1"
    assert {one["metadata"]["namespace"] for one in objects[1:]} == {namespace}
    assert all(one["metadata"]["labels"]["isotherm.io/host"] == "lab-1" for one in objects)
    assert json.loads(objects[0]["metadata"]["annotations"]["isotherm.io/label"])["user"] == SPEC.user


def test_what_selects_finds_what_it_means(objects: list[Object]) -> None:
    (service,), (made,) = of_kind(objects, "Service"), of_kind(objects, "StatefulSet")
    template = made["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert made["spec"]["serviceName"] == service["metadata"]["name"]
    (container,) = template["spec"]["containers"]
    volumes = {one["name"] for one in template["spec"]["volumes"]}
    volumes |= {one["metadata"]["name"] for one in made["spec"]["volumeClaimTemplates"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    (secret,) = of_kind(objects, "Secret")
    assert template["spec"]["volumes"][0]["secret"]["secretName"] == secret["metadata"]["name"]
    assert base64.b64decode(secret["data"]["authorized_keys"]).decode() == ADA + "\n"


def test_the_image_looks_for_keys_and_home_where_they_are_mounted(objects: list[Object]) -> None:
    (made,) = of_kind(objects, "StatefulSet")
    mounts = {one["mountPath"] for one in made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"/home", "/etc/isotherm/keys"}
    sshd = (FOLDER / "sshd.conf").read_text()
    assert "AuthorizedKeysCommand /usr/bin/cat /etc/isotherm/keys/authorized_keys" in sshd
    assert "HostKey /home/.host/" in sshd


def test_a_host_fits_into_its_quota(objects: list[Object]) -> None:
    (quota,), (made,), (service,) = (of_kind(objects, kind) for kind in ("ResourceQuota", "StatefulSet", "Service"))
    hard, spec = quota["spec"]["hard"], made["spec"]
    for kind, amounts in spec["template"]["spec"]["containers"][0]["resources"].items():
        assert {
            f"{kind}.{name}": value for name, value in amounts.items() if name != "ephemeral-storage"
        }.items() <= hard.items()
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == hard["requests.storage"] == "5Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert spec["replicas"] <= int(hard["pods"])
    assert (service["spec"]["allocateLoadBalancerNodePorts"], hard["services.nodeports"]) == (False, "0")


def test_it_has_no_rights_in_the_cluster_and_few_on_its_node(objects: list[Object]) -> None:
    pod = of_kind(objects, "StatefulSet")[0]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    context = pod["containers"][0]["securityContext"]
    assert context["privileged"] is False
    assert context["capabilities"] == {"drop": ["ALL"], "add": list(CAPABILITIES)}
    assert objects[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"


def admits(rules: list[Object], address: str) -> bool:
    """Tell whether rules of a policy let an address pass, as the documentation of NetworkPolicy says."""
    one = ipaddress.ip_address(address)
    peers: list[Object] = [peer for rule in rules for peer in (rule.get("from") or rule["to"])]
    blocks = [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
    return any(
        one in ipaddress.ip_network(block["cidr"])
        and not any(one in ipaddress.ip_network(less) for less in block.get("except", ()))
        for block in blocks
    )


def test_traffic_is_denied_but_from_outside_and_to_the_internet(objects: list[Object]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "NetworkPolicy")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    comes, goes = policies["from-outside"]["ingress"], policies["internet"]["egress"]
    assert {address: admits(comes, address) for address in ("192.168.1.5", "203.0.113.9", "2001:db8::1")} == {
        "192.168.1.5": True,
        "203.0.113.9": True,
        "2001:db8::1": True,
    }
    assert not any(admits(comes, address) for address in ("10.42.3.4", "10.43.0.1", "10.244.1.20"))
    assert admits(goes, "203.0.113.9")
    assert admits(goes, "2001:db8::1")
    closed = ("10.42.3.4", "10.43.0.1", "10.0.0.1", "192.168.1.5", "172.16.9.9", "169.254.169.254", "100.64.0.1", "fd00::1")
    assert not any(admits(goes, address) for address in closed)
    (names,) = policies["name-servers"]["egress"]
    assert names["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def test_its_address_has_ssh_and_the_ports_of_the_settings(objects: list[Object]) -> None:
    (service,) = of_kind(objects, "Service")
    open_ports = [(one["protocol"], one["port"]) for one in service["spec"]["ports"]]
    assert open_ports[0] == ("TCP", 22)
    assert {("TCP", 80), ("UDP", 5683), ("TCP", 7315), ("TCP", 8099)} < set(open_ports)
    assert len({one["name"] for one in service["spec"]["ports"]}) == len(open_ports)
    assert service["spec"]["externalTrafficPolicy"] == "Local"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hosts_ports": "80,http"}, "ISOTHERM_HOSTS_PORTS has 'http', expected such as"),
        ({"hosts_ports": "0"}, "ISOTHERM_HOSTS_PORTS has '0'"),
        ({"hosts_ports": "90-80"}, "ISOTHERM_HOSTS_PORTS has '90-80'"),
        ({"hosts_ports": "1-65535"}, "65,534 ports, expected at most 1,000"),
        ({"hosts_cluster_networks": "10.42.0.1/16"}, "ISOTHERM_HOSTS_CLUSTER_NETWORKS: 10.42.0.1/16 has host bits set"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Surroundings.of(Settings(**settings))
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["", "-a", "a-", "Lab", "1a", "a" * 33, "a_b", "a.b", "a b", "ä", "a\n"])
def test_a_name_that_is_no_dns_label_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is no name of a host"):
        checked(Spec(name=name, user="ada", keys=(ADA,)))


def test_examples_in_the_documentation_hold() -> None:
    for module in (host, manifests):
        found = doctest.testmod(module)
        assert (found.failed, found.attempted > 0) == (0, True)


def test_they_are_printed_for_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pub").write_text(ADA)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(
        app, ["hosts", "manifests", "lab", "--key", "key.pub", "--user", "ada"], catch_exceptions=False
    )
    printed = json.loads(shown.stdout)
    assert printed["kind"] == "List"
    for one in printed["items"]:
        kubernetes_validate.validate(one, VERSION, strict=True)
