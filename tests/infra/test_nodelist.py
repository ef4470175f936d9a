"""The node list: what it says, and what is wrong with it."""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from mesh.errors import NodeListError, OverlayError
from mesh.found import Found, Link, Port, Route, Switch
from mesh.nodelist import parse
from mesh.plan import COMPLETE, Place, mark, steps, tunnel
from mesh.refusals import check, check_state
from mesh.wanted import conflist, rules

from tests.support.overlay_lab import OVERLAY

SAMPLE = OVERLAY.parent / "nodes.ini"

GOOD = """
[overlay]
underlay = 192.168.56.0/24
[node cp1]
number = 1
address = 192.168.56.11
outside = 192.168.57.11/24
[node w1]
number = 2
address = 192.168.56.21
"""


def test_the_sample_is_a_node_list() -> None:
    overlay = parse(SAMPLE.read_text())
    assert [node.name for node in overlay.nodes] == ["cp1", "w1", "w2"]
    assert overlay.entrance is overlay.node("cp1")


def test_what_is_not_said_is_as_the_readme_says() -> None:
    overlay = parse(GOOD)
    assert (overlay.pods, overlay.mtu, overlay.vni, overlay.datapath) == (IPv4Network("10.244.0.0/16"), 1450, 42, "system")


def test_a_nodes_number_decides_all_its_addresses() -> None:
    node = parse(GOOD.replace("number = 2", "number = 200")).node("w1")
    assert node.gateway == IPv4Address("10.244.200.1")
    assert (node.first_pod, node.last_pod) == (IPv4Address("10.244.200.20"), IPv4Address("10.244.200.250"))
    assert (node.tunnel, node.mac) == ("vx200", "0a:58:0a:f4:c8:01")


def test_a_smaller_pod_network_has_room_for_fewer_nodes() -> None:
    smaller = GOOD.replace("[overlay]", "[overlay]\npods = 10.1.4.0/22")
    assert parse(smaller).node("w1").gateway == IPv4Address("10.1.6.1")
    with pytest.raises(NodeListError, match=r"\[node w1\] number is '4': expected a whole number from 1 to 3"):
        parse(smaller.replace("number = 2", "number = 4"))


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("[overlay]\nunderlay = 192.168.56.0/24", "", "there is no section [overlay]"),
        ("[overlay]", "mtu = 1", "no section headers"),
        ("[overlay]", "[overlay]\nmtu", "mtu"),
        ("[overlay]", "[overlay]\nmtv = 1400", "[overlay] has 'mtv', which is no setting: expected pods, underlay, mtu"),
        ("[overlay]", "[overlay]\nmtu = 1,400", "[overlay] mtu is '1,400': expected a whole number from 1280 to 8950"),
        ("[overlay]", "[overlay]\nmtu = 9000", "[overlay] mtu is '9000'"),
        ("[overlay]", "[overlay]\nvni = 16777216", "[overlay] vni is '16777216'"),
        ("[overlay]", "[overlay]\nvni = ٤٢", "[overlay] vni is '٤٢'"),
        ("[overlay]", "[overlay]\ndatapath = kernel", "[overlay] datapath is 'kernel': expected system or netdev"),
        ("[overlay]", "[overlay]\npods = 10.244.0.1/16", "has host bits set"),
        ("[overlay]", "[overlay]\npods = 10.244.0.0", "expected a network such as"),
        ("[overlay]", "[overlay]\npods = 10.244.0.0/24", "[overlay] pods is '10.244.0.0/24': expected /12 to /22"),
        ("[overlay]", "[overlay]\npods = 11.11.0.0/16", "belongs to others on the Internet"),
        ("[overlay]", "[overlay]\npods = 192.168.0.0/16", "overlap: a tunnel would lead into itself"),
        ("underlay = 192.168.56.0/24\n", "", "[overlay] has no underlay: add a line underlay = …"),
        ("underlay = 192.168.56.0/24", "underlay = 11.11.11.0/24", "belongs to others on the Internet"),
        ("underlay = 192.168.56.0/24", "underlay = fd00::/64", "[overlay] underlay is 'fd00::/64'"),
        ("[node w1]", "[nodes w1]", "section [nodes w1] is not known: expected [overlay] or [node NAME]"),
        ("[node w1]", "[node W_1]", "[node W_1]: a node's name has 1 to 63 of a-z"),
        ("[node w1]", "[node]", "[node]: a node's name has"),
        ("[node w1]", "[node cp1]", "section 'node cp1' already exists"),
        ("number = 2\n", "", "[node w1] has no number"),
        ("number = 2", "number = 2\nnumber = 3", "option 'number' in section 'node w1' already exists"),
        ("number = 2", "number = 1", "[node w1] number 1 is cp1's"),
        ("number = 2", "number = 0", "[node w1] number is '0': expected a whole number from 1 to 255"),
        ("number = 2", "number = 256", "[node w1] number is '256'"),
        ("192.168.56.21", "192.168.56.11", "[node w1] 192.168.56.11 is cp1's: each address belongs to one node"),
        ("192.168.56.21", "192.168.55.21", "[node w1] address 192.168.55.21 is no host of the underlay 192.168.56.0/24"),
        ("192.168.56.21", "192.168.56.255", "[node w1] address 192.168.56.255 is no host of the underlay"),
        ("192.168.56.21", "192.168.56.021", "[node w1] address is '192.168.56.021'"),
        ("192.168.57.11/24", "192.168.57.11", "expected an address with its prefix"),
        ("192.168.57.11/24", "192.168.57.0/24", "[node cp1] outside 192.168.57.0/24 is no host of 192.168.57.0/24"),
        ("192.168.57.11/24", "192.168.56.99/24", "overlaps with the underlay 192.168.56.0/24"),
        ("192.168.57.11/24", "10.244.9.9/24", "overlaps with the pods 10.244.0.0/16"),
        ("address = 192.168.56.21", "address = 192.168.56.21\noutside = 192.168.58.1/24", "cp1 and w1 have an outside"),
        (GOOD[GOOD.index("[node cp1]") :], "", "there is no node: add a section [node NAME]"),
    ],
)
def test_a_wrong_node_list_is_refused_in_one_line_that_says_where_and_why(good: str, bad: str, complaint: str) -> None:
    assert good in GOOD
    with pytest.raises(NodeListError) as refusal:
        parse(GOOD.replace(good, bad, 1))
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_pods_of_a_node_have_addresses_of_their_own_and_a_way_to_who_is_outside() -> None:
    overlay = parse(GOOD)
    bridge = json.loads(conflist(overlay, overlay.node("w1"), Path("/leases")))["plugins"][0]
    assert bridge["hairpinMode"] is True and bridge["mtu"] == 1450
    assert bridge["ipam"]["ranges"] == [
        [{"subnet": "10.244.0.0/16", "rangeStart": "10.244.2.20", "rangeEnd": "10.244.2.250", "gateway": "10.244.2.1"}]
    ]
    assert {"dst": "192.168.57.0/24", "gw": "10.244.1.1"} in bridge["ipam"]["routes"]


def test_rules_with_another_content_have_another_mark() -> None:
    overlay, other = parse(GOOD), parse(GOOD.replace("192.168.57.11", "192.168.58.11"))
    marks = {rules(one, one.node(name), "eth1")[1] for one in (overlay, other) for name in ("cp1", "w1")}
    assert len(marks) == 4


# What is there on the node w1 before, and after its overlay is up.

BARE = Found(
    links={"eth0": Link("eth0", 1500, "52:54:00:00:00:02", addresses=(IPv4Interface("192.168.56.21/24"),))},
    switches={},
    ports={},
    routes=(),
    rules=None,
    conflist=None,
    moved=None,
    forwarding=False,
    filtering=None,
    boot="first-boot",
)
OVERLAY_OF_TWO = parse(GOOD)
WHERE = Place(OVERLAY_OF_TWO.node("w1"), "eth0", "")


def finished() -> Found:
    from mesh import names

    me = WHERE.me
    return Found(
        links={
            **BARE.links,
            "cni0": Link("cni0", 1450, me.mac, names.MARK, addresses=(IPv4Interface("10.244.2.1/16"),)),
            "ovsup": Link("ovsup", 1450, "52:54:00:00:00:03", master="cni0"),
        },
        switches={"br-pod": Switch("br-pod", "system", mark(COMPLETE, "first-boot"))},
        ports={
            "ovsup": Port("ovsup", "br-pod", "internal"),
            "vx1": tunnel(OVERLAY_OF_TWO, OVERLAY_OF_TWO.node("cp1")),
        },
        routes=(Route("192.168.57.0/24", "cni0", "10.244.1.1", names.PROTOCOL),),
        rules=rules(OVERLAY_OF_TWO, me, "")[1],
        conflist=conflist(OVERLAY_OF_TWO, me, names.cni_leases()),
        moved=None,
        forwarding=True,
        filtering=True,
        boot="first-boot",
    )


def changed(**fields: object) -> Found:
    return Found(**{**finished().__dict__, **fields})


def test_nothing_is_to_be_done_where_all_is_as_it_should_be() -> None:
    assert steps(OVERLAY_OF_TWO, WHERE, finished()) == []


def test_what_is_new_is_marked_as_unfinished_first_and_as_complete_last() -> None:
    todo = steps(OVERLAY_OF_TWO, WHERE, BARE)
    assert f'external_ids:isotherm-overlay="building {BARE.boot}"' in todo[0].commands[0]
    assert f'external_ids:isotherm-overlay="complete {BARE.boot}"' in todo[-1].commands[0]


def test_after_a_boot_the_kernels_part_is_made_again() -> None:
    left = changed(links=BARE.links, routes=(), rules=None, forwarding=False, boot="second-boot")
    check_reasons(left)
    whats = [step.what for step in steps(OVERLAY_OF_TWO, WHERE, left)]
    assert "bridge cni0 for the pods" in whats and not any(what.startswith("tunnel") for what in whats)


@pytest.mark.parametrize(
    ("filtering", "whats"),
    [
        (None, ["the kernel's module br_netfilter", "what is bridged passes the rules of Services and policies"]),
        (False, ["what is bridged passes the rules of Services and policies"]),
        (True, []),
    ],
)
def test_what_is_bridged_is_made_to_pass_the_rules(filtering: bool | None, whats: list[str]) -> None:
    todo = steps(OVERLAY_OF_TWO, WHERE, changed(filtering=filtering))
    assert [step.what for step in todo][1:-1] == whats


def check_reasons(found: Found, text: str = GOOD) -> None:
    """Refuse as `up` does, but for what is asked of the kernel and the wire, which a switch that is ours spares."""
    check_state(found)
    check(parse(text), WHERE, found)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"switches": None}, "Open vSwitch does not answer"),
        ({"switches": {"br-pod": Switch("br-pod", "system", "building first-boot")}}, "half up, an `up` has not ended"),
        ({"switches": {}}, "half up, br-pod is missing (there is cni0 with 10.244.2.1/16, route 192.168.57.0/24"),
        ({"links": BARE.links}, "half up, cni0 is gone"),
        ({"ports": {}}, "half up, ovsup is gone"),
        ({"switches": {"br-pod": Switch("br-pod", "netdev", "complete first-boot")}}, "up with datapath netdev, not system"),
    ],
)
def test_what_is_half_there_is_refused_and_named(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(OverlayError) as refusal:
        check_reasons(changed(**fields))
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        (
            Link("docker1", 1500, "", addresses=(IPv4Interface("10.244.9.1/24"),)),
            "docker1 has 10.244.9.1/24, which",
        ),
        (Link("wide0", 1500, "", addresses=(IPv4Interface("10.1.1.1/8"),)), "wide0 has 10.1.1.1/8, which overlaps"),
        (Link("cni0", 1500, ""), "there is a bridge cni0 that is not ours"),
        (Link("eth0", 1450, "", addresses=(IPv4Interface("192.168.56.21/24"),)), "MTU 1450 is too large: with the 50 bytes"),
    ],
)
def test_what_others_have_is_not_taken_from_them(link: Link, complaint: str) -> None:
    with pytest.raises(OverlayError) as refusal:
        check_reasons(changed(links={**finished().links, link.name: link}))
    assert complaint in str(refusal.value)


def run_overlay(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(OVERLAY), *arguments], capture_output=True, text=True, timeout=30)


def test_an_unknown_node_and_a_missing_list_are_refused_by_the_script(tmp_path: Path) -> None:
    refused = run_overlay("status", "--nodes", str(SAMPLE), "--node", "w9")
    assert refused.returncode == 2
    assert refused.stderr == (
        "overlay: node 'w9' is not in the node list, which has cp1, w1, w2: add it, or say who this is with --node\n"
    )
    refused = run_overlay("up", "--nodes", str(tmp_path / "none.ini"))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "cannot be read (No such file or directory): say where it is with --nodes" in refused.stderr


def test_bytes_that_are_no_text_are_refused_by_the_script(tmp_path: Path) -> None:
    (tmp_path / "nodes.ini").write_bytes(b"\xff\xfe[overlay]\n")
    refused = run_overlay("up", "--nodes", str(tmp_path / "nodes.ini"))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "Traceback" not in refused.stderr
