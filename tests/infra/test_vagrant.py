"""The machines that Vagrant makes: their addresses, their node list, their certificates, and what is installed on them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from mesh.nodelist import Overlay, parse

from tests.support.overlay_lab import OVERLAY, ROOT

VAGRANT = ROOT / "infra" / "vagrant"
ALLOWED = IPv4Network("192.168.56.0/21")
"""What VirtualBox lets host-only networks have, unless its networks.conf says otherwise."""

OTHERS = (IPv4Network("172.17.0.0/16"), IPv4Network("10.0.2.0/24"), IPv4Network("192.168.121.0/24"))
"""Docker's bridge, VirtualBox's NAT, libvirt's management network: there on such machines already."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program in infra/vagrant, with settings of the machines."""

    def run(*command: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ISOTHERM_")}
        # .vagrant is where Vagrant keeps which machines there are: here, there are none.
        offline = {
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_DOTFILE_PATH": str(tmp_path / "machines"),
        }
        chosen = {f"ISOTHERM_VM_{name}": value for name, value in settings.items()}
        done = subprocess.run(
            command, cwd=VAGRANT, env={**environment, **offline, **chosen}, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def machines(run: Run, tool: Callable[..., str], scratch: Path, **settings: str) -> dict[str, Any]:
    """Return what Vagrant makes of the Vagrantfile."""
    tool("vagrant")
    script = str(ROOT / "tests" / "support" / "vagrant_machines.rb")
    said = run(tool("ruby"), script, str(VAGRANT), str(scratch), "libvirt", **settings)
    made: dict[str, Any] = json.loads(said.stdout)
    return made


def node_list(machine: dict[str, Any]) -> Overlay:
    """Return the node list that a machine is given."""
    return parse(re.sub(r"^.*<<'END'\n|\nEND\n$", "", machine["inline"][0], flags=re.DOTALL))


def test_vagrant_takes_the_vagrantfile(run: Run, tool: Callable[..., str]) -> None:
    said = run(tool("vagrant"), "validate", "--ignore-provider")
    assert "Vagrantfile validated successfully." in said.stdout


@pytest.mark.parametrize("workers", [1, 2, 30])
def test_machines_have_the_addresses_of_the_overlays_node_list(
    workers: int, run: Run, tool: Callable[..., str], tmp_path: Path
) -> None:
    made = machines(run, tool, tmp_path, WORKERS=str(workers))
    assert len(made) == workers + 1
    for name, machine in made.items():
        overlay = node_list(machine)
        assert {node.name for node in overlay.nodes} == set(made)
        node = overlay.node(name)
        outside = [str(node.outside.ip)] if node.outside else []
        assert machine["hostname"] == name
        assert machine["addresses"] == [str(node.address), *outside]
        assert machine["environment"]["ADDRESS"] == str(node.address)
        assert machine["environment"]["SERVER"] == str(overlay.node("cp1").address)


def test_addresses_lie_where_virtualbox_allows_them_and_clash_with_nothing(
    run: Run, tool: Callable[..., str], tmp_path: Path
) -> None:
    made = machines(run, tool, tmp_path, WORKERS="30")
    addresses = [IPv4Address(address) for machine in made.values() for address in machine["addresses"]]
    assert len(addresses) == len(set(addresses)) == 32
    for address in addresses:
        assert address in ALLOWED and not any(address in others for others in OTHERS)
        assert str(address).rpartition(".")[2] not in ("0", "1", "255"), "the host itself is .1 of such a network"
    services = IPv4Network(made["cp1"]["environment"]["SERVICES"])
    overlay = node_list(made["cp1"])
    taken = (*OTHERS, ALLOWED, services)
    assert not any(overlay.pods.overlaps(network) for network in taken)
    assert not any(services.overlaps(network) for network in (*OTHERS, ALLOWED, overlay.pods))


def test_the_sample_of_the_overlay_is_the_node_list_of_the_machines_by_default(run: Run, tool: Callable[..., str]) -> None:
    assert parse(run(tool("ruby"), "cluster.rb").stdout) == parse((OVERLAY.parent / "nodes.ini").read_text())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"WORKERS": "0"}, 'ISOTHERM_VM_WORKERS is "0": expected a whole number from 1 to 30'),
        ({"WORKERS": "two"}, 'ISOTHERM_VM_WORKERS is "two": expected a whole number from 1 to 30'),
        ({"WORKER_MEMORY": "2G"}, 'ISOTHERM_VM_WORKER_MEMORY is "2G": expected a whole number from 1024'),
        ({"OUTSIDE": "11.11.11.0/24"}, 'ISOTHERM_VM_OUTSIDE is "11.11.11.0/24": expected a part of 192.168.56.0/21'),
        ({"UNDERLAY": "172.17.4.0/24"}, 'ISOTHERM_VM_UNDERLAY is "172.17.4.0/24": expected a part of 192.168.56.0/21'),
        ({"UNDERLAY": "192.168.56.0/23"}, 'ISOTHERM_VM_UNDERLAY is "192.168.56.0/23": expected a /24'),
        ({"UNDERLAY": "192.168.999.0/24"}, 'ISOTHERM_VM_UNDERLAY is "192.168.999.0/24": '),
        ({"UNDERLAY": "192.168.57.0/24"}, 'ISOTHERM_VM_OUTSIDE is "192.168.57.0/24": the UNDERLAY is the same'),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_before_there_is_a_machine(
    settings: dict[str, str], complaint: str, run: Run, tool: Callable[..., str]
) -> None:
    refused = run(tool("vagrant"), "status", check=False, **settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Vagrantfile: {complaint}") and refused.stderr.count("\n") == 1


def test_nodes_have_certificates_of_one_authority_for_their_own_addresses(tmp_path: Path, tool: Callable[..., str]) -> None:
    openssl = tool("openssl")
    script = tmp_path / "secrets.sh"
    script.write_bytes((VAGRANT / "secrets.sh").read_bytes())
    script.chmod(0o755)
    nodes = ["cp1,192.168.56.11,192.168.57.11", "w1,192.168.56.21"]
    subprocess.run([script, *nodes], check=True, capture_output=True)
    made = tmp_path / "secrets"

    def names_in(node: str) -> str:
        certificate = str(made / node / "node.crt")
        subprocess.run([openssl, "verify", "-CAfile", str(made / "ca.crt"), certificate], check=True, capture_output=True)
        shown = (openssl, "x509", "-noout", "-ext", "subjectAltName", "-in", certificate)
        return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.splitlines()[1].strip()

    assert names_in("cp1") == "DNS:cp1, IP Address:192.168.56.11, IP Address:192.168.57.11"
    assert names_in("w1") == "DNS:w1, IP Address:192.168.56.21"
    assert {path.name for path in (made / "w1").iterdir()} == {"ca.crt", "node.crt", "node.key", "names", "token"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in made.rglob("*"))

    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    subprocess.run([script, *nodes], check=True, capture_output=True)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    subprocess.run([script, nodes[0], "w1,192.168.56.99"], check=True, capture_output=True)
    assert names_in("w1") == "DNS:w1, IP Address:192.168.56.99" and names_in("cp1").startswith("DNS:cp1")


class Machine:
    """A folder that stands for a machine's root, a mirror, and programs that only write down how they are called."""

    def __init__(self, directory: Path) -> None:
        self.root, self.mirror, self.calls = (
            directory / "root",
            directory / "mirror" / "k3s" / "v1+k3s1",
            directory / "calls",
        )
        isotherm, programs = directory / "isotherm", directory / "bin"
        for folder in (self.mirror, isotherm / "secrets", isotherm / "infra" / "images", programs):
            folder.mkdir(parents=True)
        for name in ("ca.crt", "node.crt", "node.key", "token"):
            (isotherm / "secrets" / name).write_text(name)
        for name in ("systemctl", "modprobe", "sysctl"):
            self._program(programs / name, name)
        self.images = isotherm / "infra" / "images"
        self._program(self.mirror / "k3s", "k3s")
        self.publish()
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ISOTHERM": str(isotherm),
            "ROOT": str(self.root),
            "MIRROR": f"file://{directory}/mirror",
            "K3S": "v1+k3s1",
            "K3S_URL": "file:///nowhere",
            "ADDRESS": "192.168.56.11",
            "OUTSIDE": "192.168.57.11",
            "SERVER": "192.168.56.11",
            "PODS": "10.244.0.0/16",
            "SERVICES": "10.43.0.0/16",
            "NODE": "cp1",
            "ROLE": "server",
        }

    def publish(self) -> None:
        """Write the mirror's list of checksums."""
        (self.mirror / "k3s-airgap-images-amd64.tar.zst").write_text("images of k3s")
        files = ("k3s", "k3s-airgap-images-amd64.tar.zst")
        listed = subprocess.run(["sha256sum", *files], cwd=self.mirror, capture_output=True, text=True, check=True).stdout
        (self.mirror / "sha256sum-amd64.txt").write_text(listed)

    def provision(self, part: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a part of provision.sh on it."""
        return subprocess.run(
            [str(VAGRANT / "provision.sh"), part], env={**self.environment, **environment}, capture_output=True, text=True
        )

    def called(self) -> list[str]:
        """Return how the programs were called."""
        return self.calls.read_text().splitlines()

    def _program(self, path: Path, name: str) -> None:
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n')
        path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, tool: Callable[..., str]) -> Machine:
    """A machine that is not one."""
    tool("curl")
    if os.uname().machine != "x86_64":
        pytest.skip("the mirror of this test has k3s for x86_64")
    return Machine(tmp_path)


def test_a_server_runs_k3s_without_what_the_overlay_replaces(machine: Machine) -> None:
    assert machine.provision("k3s").returncode == 0
    unit = (machine.root / "etc/systemd/system/k3s.service").read_text()
    assert (
        " server --node-name=cp1 --node-ip=192.168.56.11 --token-file=/etc/isotherm/tls/token --flannel-backend=none" in unit
    )
    for flag in ("--disable=traefik,servicelb", "--cluster-cidr=10.244.0.0/16", "--tls-san=192.168.57.11"):
        assert flag in unit
    assert "ExecStartPre=/usr/bin/systemctl is-active --quiet isotherm-overlay" in unit
    assert (machine.root / "var/lib/rancher/k3s/agent/images/k3s.tar.zst").read_text() == "images of k3s"
    assert (machine.root / "etc/isotherm/tls/node.key").stat().st_mode & 0o777 == 0o600
    assert "systemctl enable -q --now k3s" in machine.called()
    assert any(call.startswith("k3s kubectl create secret tls isotherm-tls") for call in machine.called())


def test_a_worker_joins_the_server(machine: Machine) -> None:
    assert machine.provision("k3s", NODE="w1", ROLE="agent", ADDRESS="192.168.56.21", OUTSIDE="").returncode == 0
    unit = (machine.root / "etc/systemd/system/k3s-agent.service").read_text()
    assert " agent --node-name=w1 --node-ip=192.168.56.21 " in unit and "--server=https://192.168.56.11:6443" in unit
    assert not any("kubectl" in call for call in machine.called())


def test_a_k3s_that_is_not_what_its_checksum_says_is_not_installed(machine: Machine) -> None:
    with (machine.mirror / "k3s").open("a") as binary:
        binary.write("# changed on the way\n")
    refused = machine.provision("k3s")
    assert refused.returncode == 1 and "is not what its checksum says" in refused.stderr
    assert not list((machine.root / "usr/local/bin").iterdir())
    machine.publish()
    assert machine.provision("k3s").returncode == 0


def test_what_is_installed_already_is_not_fetched_again(machine: Machine) -> None:
    assert "fetching k3s of k3s v1+k3s1" in machine.provision("k3s").stdout
    assert "fetching" not in machine.provision("k3s").stdout


def test_images_are_loaded_when_there_are_any(machine: Machine) -> None:
    machine.provision("k3s")
    assert "there is no infra/images/*.tar" in machine.provision("images").stdout
    (machine.images / "isotherm.tar").touch()
    assert "loading isotherm.tar" in machine.provision("images").stdout
    assert machine.called()[-1] == f"k3s ctr images import {machine.images}/isotherm.tar"


def test_a_machine_without_secrets_or_a_node_list_is_refused(machine: Machine) -> None:
    (machine.images.parents[1] / "secrets" / "node.key").unlink()
    refused = machine.provision("k3s")
    assert refused.returncode == 1 and "secrets/node.key: secrets.sh makes it" in refused.stderr
    refused = machine.provision("overlay")
    assert refused.returncode == 1 and "write the node list there first" in refused.stderr
    assert machine.provision("everything").returncode == 1


def test_shell_scripts_have_no_faults_that_shellcheck_knows(tool: Callable[..., str]) -> None:
    listed = subprocess.run(["git", "ls-files", "*.sh"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "infra/vagrant/provision.sh" in listed
    checked = subprocess.run([tool("shellcheck"), *listed], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
