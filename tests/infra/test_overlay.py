"""The overlay on three machines: namespaces with an Open vSwitch each, and pods that real CNI plug-ins connect."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import missing
from tests.support.overlay_lab import CLIENT, MORTAL, ROOT, Host, Lab, Namespace, Pod, join, unavailable, wait_for

pytestmark = pytest.mark.servers

FITS = 1422
"""Bytes of an echo request that just fit into an MTU of 1450."""


@pytest.fixture(scope="module")
def empty_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts for the whole module."""
    if reason := unavailable():
        missing(reason)
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def lab(empty_lab: Lab) -> Iterator[Lab]:
    """Hosts whose overlay is up, with one pod each, as the list of all three says."""
    empty_lab.write_nodes(1, 2, 3)
    empty_lab.up()
    for host in empty_lab.hosts:
        if not host.pods:
            host.pod("a")
    yield empty_lab


@pytest.fixture
def bare(empty_lab: Lab) -> Iterator[Host]:
    """A host of it that has no overlay; the others' is as it was."""
    host = empty_lab.hosts[2]
    empty_lab.write_nodes(1, 2, 3)
    empty_lab.clean(host)
    yield host
    empty_lab.clean(host)


def state(host: Host) -> Any:
    """Return all that a host has, but for what counts and what is told by others."""
    links = {
        name: (link["mtu"], link["address"], link.get("master"), [one["local"] for one in link["addr_info"]])
        for name, link in host.links().items()
    }
    ours = [host.vsctl("--columns=_uuid,name,type,options,bfd", "list", "interface"), host.vsctl("list", "bridge")]
    routes = [host.run("ip", "route").stdout, host.run("nft", "list", "ruleset").stdout]
    return links, ours, routes


def transfer(source: Namespace, target: Pod | Host, address: str, size: int) -> dict[str, Any]:
    """Send bytes over TCP; returns who came with how many, once what was sent is what has come."""
    server = target.peer("serve", address, "7000")
    sent, _ = source.peer("send", address, "7000", str(size)).communicate(timeout=30)
    got: dict[str, Any] = json.loads(server.communicate(timeout=30)[0])
    assert got["sha256"] == json.loads(sent)["sha256"] and got["bytes"] == size
    return got


def test_every_pod_reaches_every_other_with_the_whole_mtu_and_not_a_byte_more(lab: Lab) -> None:
    pods = [host.pods[0] for host in lab.hosts]
    assert [pod.address for pod in pods] == ["10.244.1.20", "10.244.2.20", "10.244.3.20"]
    for one, other in permutations(pods, 2):
        assert one.pings(other.address, "-M", "do", "-s", str(FITS)), f"{one.address} → {other.address}"
        assert one.refuses(other.address, FITS + 1)


def test_what_is_sent_over_tcp_arrives_as_it_was(lab: Lab) -> None:
    for one, other in ((1, 3), (2, 1)):
        source, target = lab.hosts[one - 1].pods[0], lab.hosts[other - 1].pods[0]
        assert transfer(source, target, target.address, 8_000_000)["peer"] == source.address


def test_two_pods_of_a_host_and_the_host_itself_reach_each_other(lab: Lab) -> None:
    host = lab.hosts[1]
    second = host.pod("b")
    assert second.address == "10.244.2.21"
    assert transfer(second, host.pods[0], host.pods[0].address, 100_000)["peer"] == second.address
    assert transfer(host, lab.hosts[2].pods[0], lab.hosts[2].pods[0].address, 100_000)["peer"] == "10.244.2.1"


def test_bringing_it_up_again_changes_nothing(lab: Lab) -> None:
    for host in lab.hosts:
        before = state(host)
        assert host.overlay("up").stdout == f"{host.node}: nothing to change\n"
        assert state(host) == before


def test_a_trial_says_what_it_would_do_and_does_nothing(bare: Host) -> None:
    before = state(bare)
    assert "h3: bridge cni0 for the pods\n" in bare.overlay("up", "--dry-run").stdout
    assert state(bare) == before


def test_what_is_sent_to_all_reaches_each_once(lab: Lab) -> None:
    """A mesh with a loop makes millions of these."""
    pods = [host.pods[0] for host in lab.hosts]
    listeners = [pod.peer("listen", "eth0") for pod in pods]
    pods[0].peer("shout", "eth0", "20").communicate(timeout=30)
    heard = [json.loads(listener.communicate(timeout=60)[0])["heard"] for listener in listeners[1:]]
    listeners[0].kill()
    assert heard == [20, 20]


def test_hairpin_is_on_at_the_pods_and_never_at_the_uplink(lab: Lab) -> None:
    for host in lab.hosts:
        ports = {name: link for name, link in host.links().items() if link.get("master") == "cni0"}
        hairpin = {name: link["linkinfo"]["info_slave_data"]["hairpin"] for name, link in ports.items()}
        assert hairpin.pop("ovsup") is False
        assert hairpin and all(hairpin.values())


def test_a_pod_reaches_itself_through_its_service(lab: Lab) -> None:
    """What kube-proxy does of a service's address, done by hand."""
    host, pod = lab.hosts[1], lab.hosts[1].pods[0]
    rules = f"""table ip service {{
        chain in {{ type nat hook prerouting priority dstnat; ip daddr 10.43.0.10 dnat to {pod.address}; }}
        chain out {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}
    }}"""
    host.run("nft", "-f", "-", given=rules)
    try:
        server = pod.peer("serve", pod.address, "7000")
        pod.peer("send", "10.43.0.10", "7000", "1000").communicate(timeout=30)
        assert json.loads(server.communicate(timeout=30)[0])["bytes"] == 1000
    finally:
        host.run("nft", "delete", "table", "ip", "service")


def test_who_is_outside_reaches_a_pod_of_any_host_under_its_own_address(lab: Lab) -> None:
    for host in lab.hosts:
        assert transfer(lab.outside, host.pods[0], host.pods[0].address, 200_000)["peer"] == CLIENT


def test_who_comes_from_farther_has_the_entrances_address(lab: Lab) -> None:
    farther = Namespace("farther")
    try:
        join(lab.outside, "eth1", farther, "eth0")
        lab.outside.run("ip", "address", "add", "192.168.99.1/24", "dev", "eth1")
        lab.outside.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        farther.run("ip", "address", "add", "192.168.99.2/24", "dev", "eth0")
        farther.run("ip", "route", "add", "default", "via", "192.168.99.1")
        lab.hosts[0].run("ip", "route", "add", "192.168.99.0/24", "via", CLIENT)
        pod = lab.hosts[2].pods[0]
        assert transfer(farther, pod, pod.address, 1000)["peer"] == "10.244.1.1"
    finally:
        lab.hosts[0].run("ip", "route", "del", "192.168.99.0/24", check=False)
        farther.end()


def test_who_is_outside_neither_reaches_the_underlay_nor_passes_for_a_pod(lab: Lab) -> None:
    outside, pod = lab.outside, lab.hosts[1].pods[0]
    outside.run("ip", "route", "add", "192.168.56.0/24", "via", "192.168.57.11")
    outside.run("ip", "address", "add", "10.244.99.99/32", "dev", "lo")
    try:
        assert outside.run("ping", "-c", "1", "-W", "0.5", lab.hosts[1].address, check=False).returncode == 1
        assert outside.run("ping", "-c", "1", "-W", "0.5", "-I", "10.244.99.99", pod.address, check=False).returncode == 1
        assert outside.pings(pod.address)
    finally:
        outside.run("ip", "route", "del", "192.168.56.0/24")
        outside.run("ip", "address", "del", "10.244.99.99/32", "dev", "lo")


def test_a_pod_leaves_the_cluster_under_its_nodes_address(lab: Lab) -> None:
    pod, other = lab.hosts[2].pods[0], lab.hosts[1]
    assert transfer(pod, other, other.address, 1000)["peer"] == lab.hosts[2].address


def test_the_loss_of_a_host_is_seen_and_disturbs_nobody_else(lab: Lab) -> None:
    one, two, three = lab.hosts
    ping = one.pods[0].start("ping", "-n", "-q", "-i", "0.02", two.pods[0].address)
    lab.underlay.run("ip", "link", "set", three.node, "down")
    try:
        for host in (one, two):
            wait_for(lambda host=host: lab.tunnels(host)["vx3"] == "down", "the tunnel to be known as dead", 10)
        assert lab.tunnels(one)["vx2"] == lab.tunnels(two)["vx1"] == "up"
        assert one.status()["tunnels"]["h3"] == {"address": three.address, "bfd": "down"}
        checked = one.overlay("check", check=False)
        assert checked.returncode == 1
        assert "BAD   h3: its tunnel is alive (BFD): it is down: is the node up" in checked.stdout
        assert "good  h2: its tunnel is alive (BFD)" in checked.stdout
    finally:
        lab.underlay.run("ip", "link", "set", three.node, "up")
    lab.wait_until_alive()
    assert one.pods[0].pings(three.pods[0].address)
    ping.send_signal(signal.SIGINT)
    assert ", 0% packet loss" in ping.communicate(timeout=30)[0]


def test_a_node_leaves_and_comes_again_with_the_list(lab: Lab) -> None:
    one, two, three = lab.hosts
    lab.write_nodes(1, 2)
    for host in (one, two):
        assert f"{host.node}: no tunnel vx3 to {three.address} any more\n" in host.overlay("up").stdout
        assert set(host.status()["tunnels"]) == {"h1", "h2"} - {host.node}
    assert not one.pods[0].pings(three.pods[0].address, "-W", "0.5")
    assert one.pods[0].pings(two.pods[0].address)
    refused = three.overlay("up", check=False)
    assert refused.returncode == 2 and "node 'h3' is not in the node list, which has h1, h2" in refused.stderr

    lab.write_nodes(1, 2, 3)
    for host in (one, two):
        assert f"{host.node}: tunnel vx3 to h3, {three.address}\n" in host.overlay("up").stdout
    lab.wait_until_alive()
    assert one.pods[0].pings(three.pods[0].address) and two.pods[0].pings(three.pods[0].address)


def test_another_mtu_in_the_list_is_taken_over(lab: Lab) -> None:
    host = lab.hosts[0]
    lab.write_nodes(1, 2, 3, mtu="1400")
    host.overlay("up")
    assert {host.links()[name]["mtu"] for name in ("cni0", "ovsup")} == {1400}
    lab.write_nodes(1, 2, 3)
    host.overlay("up")
    assert {host.links()[name]["mtu"] for name in ("cni0", "ovsup")} == {1450}


def test_status_says_what_is_there_and_check_finds_nothing_wrong(lab: Lab) -> None:
    checks = [host.start(*host.overlay_command("check", "--json")) for host in lab.hosts]
    for host, checked in zip(lab.hosts, checks, strict=True):
        status = host.status()
        assert (status["state"], status["datapath"], status["changes"]) == ("up", "netdev", [])
        assert set(status["tunnels"]) == {"h1", "h2", "h3"} - {host.node}
        found = json.loads(checked.communicate(timeout=30)[0])
        assert checked.returncode == 0 and len(found) == 13 and all(one["is_good"] for one in found)


def test_check_says_which_tunnel_is_not_split_off_and_up_mends_it(lab: Lab) -> None:
    host = lab.hosts[0]
    host.vsctl("set", "port", "vx2", "protected=false")
    checked = host.overlay("check", check=False)
    assert checked.returncode == 1
    assert (
        "BAD   split horizon: nothing goes from one tunnel to another: vx2 is not protected: `overlay up`" in checked.stdout
    )
    assert "h1: tunnel vx2 to h2" in host.overlay("up").stdout
    assert host.overlay("check").returncode == 0


def test_check_sees_a_loop(lab: Lab) -> None:
    """A cable from the pods' bridge to Open vSwitch's beside the uplink, which nobody should lay."""
    host = lab.hosts[0]
    lab.write_nodes(1)  # the loop is to be this host's alone
    host.overlay("up")
    host.run("ip", "link", "add", "loop0", "type", "veth", "peer", "name", "loop1")
    try:
        host.run("ip", "link", "set", "loop0", "master", "cni0", "up")
        host.run("ip", "link", "set", "loop1", "up")
        host.vsctl("add-port", "br-pod", "loop1")
        checked = host.overlay("check", check=False)
        assert "BAD   what is sent to all does not come back" in checked.stdout
    finally:
        host.run("ip", "link", "del", "loop0")
        host.vsctl("--if-exists", "del-port", "br-pod", "loop1")
    assert host.overlay("check").returncode == 0


def test_down_leaves_nothing_and_gives_the_underlay_back(bare: Host) -> None:
    before = state(bare)
    bare.run("ip", "route", "add", "192.168.77.0/24", "via", "192.168.56.1", "metric", "50")
    with_route = state(bare)
    bare.overlay("up")
    assert "192.168.77.0/24 via 192.168.56.1 dev br-phy metric 50" in bare.run("ip", "route").stdout
    bare.overlay("down")
    assert state(bare) == with_route
    bare.run("ip", "route", "del", "192.168.77.0/24")
    assert state(bare) == before
    assert bare.overlay("down").stdout == "nothing was there\n"
    assert bare.status()["state"] == "down"
    assert not list((bare.directory / "cni").iterdir()) and not (bare.directory / "leases" / "isotherm").exists()


@pytest.mark.parametrize(
    ("program", "moment", "there"),
    [
        ("nft", "-f -", "cni0 with 10.244.3.1/16, port ovsup, port vx1, port vx2, eth0's addresses on br-phy)"),
        ("ip", "address replace", "port ovsup, eth0's addresses on br-phy)"),
        (
            "ovs-vsctl",
            "--timeout=10 --may-exist add-port br-pod vx2",
            "cni0 with 10.244.3.1/16, port ovsup, port vx1, eth0's",
        ),
    ],
    ids=["rules", "underlay", "tunnels"],
)
def test_an_up_that_was_killed_is_half_up_until_down(
    program: str, moment: str, there: str, bare: Host, tmp_path: Path
) -> None:
    before = state(bare)
    real = shutil.which(program, path=bare.environment["PATH"])
    killer = tmp_path / program
    killer.write_text(f'#!/bin/sh\ncase "$*" in *"{moment}"*) kill -KILL $PPID; exit;; esac\nexec {real} "$@"\n')
    killer.chmod(0o755)
    killed = bare.overlay("up", check=False, PATH=f"{tmp_path}:{bare.environment['PATH']}")
    assert killed.returncode == -signal.SIGKILL

    half = state(bare)
    refused = bare.overlay("up", check=False)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "the overlay is half up, an `up` has not ended (there is br-phy of Open vSwitch, br-pod of" in refused.stderr
    assert there in refused.stderr and "`overlay down` cleans it away" in refused.stderr
    assert bare.status()["state"] == "half up"
    assert state(bare) == half

    bare.overlay("down")
    assert state(bare) == before
    bare.overlay("up")
    assert bare.status()["state"] == "up"


@pytest.mark.parametrize(
    "lost",
    [
        ("ovs-vsctl", "del-br", "br-pod"),
        ("ovs-vsctl", "del-port", "br-pod", "ovsup"),
        ("ip", "link", "del", "cni0"),
    ],
    ids=["br-pod", "ovsup", "cni0"],
)
def test_an_overlay_that_has_lost_a_part_is_refused_and_taken_away(bare: Host, lost: tuple[str, ...]) -> None:
    before = state(bare)
    bare.overlay("up")
    bare.run(*lost)
    refused = bare.overlay("up", check=False)
    assert refused.returncode == 2 and f"half up, {lost[-1]} is" in refused.stderr
    bare.overlay("down")
    assert state(bare) == before


def test_down_cleans_the_kernel_also_when_open_vswitch_is_dead(bare: Host) -> None:
    before = state(bare)
    bare.overlay("up")
    for program in (bare.switch, bare.database):
        program.kill()
        program.wait()
    refused = bare.overlay("down", check=False)
    assert refused.returncode == 2 and "start it, and take down again" in refused.stderr
    links = bare.links()
    assert "cni0" not in links and [one["local"] for one in links["eth0"]["addr_info"] if one["family"] == "inet"] == [
        bare.address
    ]
    bare.start_switch()
    bare.overlay("down")
    wait_for(lambda: "br-phy" not in bare.links(), "Open vSwitch to take its interfaces away")
    assert state(bare) == before


def test_what_would_not_work_is_refused_before_anything_is_changed(bare: Host, empty_lab: Lab, tmp_path: Path) -> None:
    before = state(bare)

    def refusal(**environment: str) -> str:
        refused = bare.overlay("up", check=False, **environment)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused
        assert refused.stdout == "" and state(bare) == before
        return refused.stderr

    empty_lab.write_nodes(1, 2, 3, mtu="1451")
    assert (
        "MTU 1451 is too large: with the 50 bytes of a tunnel it does not fit into the 1500 of eth0; set mtu = 1450"
        in refusal()
    )
    empty_lab.write_nodes(1, 2, 3)
    if not Path("/sys/module/openvswitch").exists() and subprocess.run(["modprobe", "-n", "openvswitch"]).returncode:
        assert "the kernel has no module openvswitch, which DATAPATH=system needs" in refusal(DATAPATH="system")
    assert "DATAPATH is 'fast': expected system or netdev" in refusal(DATAPATH="fast")
    (tmp_path / "python3").symlink_to(sys.executable)
    assert "iproute2" not in refusal(PATH=str(tmp_path), DATAPATH="fast")
    assert "Open vSwitch does not answer" in refusal(OVS_RUNDIR=str(tmp_path))
    trial = tmp_path / "unshare"
    trial.write_text("#!/bin/sh\ncase $* in *vxlan*) echo Unknown device type >&2; exit 2;; esac\n")
    trial.chmod(0o755)
    assert "the kernel has no vxlan (tried: ip link add" in refusal(PATH=f"{tmp_path}:{bare.environment['PATH']}")
    nodes = empty_lab.directory / "nodes.ini"
    nodes.write_text(nodes.read_text().replace(bare.address, "192.168.56.99"))
    assert "192.168.56.99 of node h3 is on no interface here (there are: eth0 192.168.56.22)" in refusal()


def test_an_address_that_somebody_else_has_is_refused(bare: Host, empty_lab: Lab) -> None:
    before = state(bare)
    empty_lab.underlay.run("ip", "address", "add", f"{bare.address}/24", "dev", "switch")
    try:
        refused = bare.overlay("up", check=False)
    finally:
        empty_lab.underlay.run("ip", "address", "del", f"{bare.address}/24", "dev", "switch")
    mac = empty_lab.underlay.links()["switch"]["address"]
    assert refused.returncode == 2
    assert refused.stderr == (
        f"overlay: {bare.address} is also {mac}'s on eth0: give one of the two machines another address\n"
    )
    bare.run("ip", "neighbour", "flush", "all")
    assert state(bare) == before


def test_a_run_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    if reason := unavailable():
        missing(reason)
    command = [*MORTAL, sys.executable, "-m", "tests.support.overlay_lab", str(tmp_path / "lab")]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        there = json.loads(run.stdout.readline())
        programs = [psutil.Process(pid) for pid in there["pids"]]
        assert len(programs) == 14 and set(there["namespaces"]) == set(map(namespace_of, programs))
        killed_at = time.time()
    finally:
        run.kill()
        run.communicate()
    _, left = psutil.wait_procs(programs, timeout=30)
    assert not left
    # The kernel gives the numbers of namespaces that are gone to new ones of other people.
    older = (process for process in psutil.process_iter() if process.create_time() < killed_at)
    assert not [process for process in older if namespace_of(process) in there["namespaces"]]


def namespace_of(process: psutil.Process) -> str | None:
    """Return the network namespace that a process is in; None when it is gone, or none of our business."""
    try:
        return str(Path(f"/proc/{process.pid}/ns/net").readlink())
    except (FileNotFoundError, PermissionError):
        return None
