"""What has to be done so that a node is as the list says: the difference between wanted and found, as steps. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Mapping

from mesh import names, wanted
from mesh.found import BRIDGED, FORWARDING, Found, Link, Port
from mesh.nodelist import Node, Overlay

BFD_MS = 200
"""How often tunnels say that they are there (RFC 5880); after three times that they are known to be dead."""

BUILDING, COMPLETE = "building", "complete"


@dataclass(frozen=True)
class Step:
    """One change.

    Attributes:
        what: What changes, for people.
        commands: What does it, in this order, after the files were written.
        files: Paths and their new texts.
        given: What the last command reads.
    """

    what: str
    commands: tuple[tuple[str, ...], ...] = ()
    files: tuple[tuple[Path, str], ...] = ()
    given: str | None = None


@dataclass(frozen=True)
class Place:
    """Who we are on this node.

    Attributes:
        me: The node of the list.
        interface: The one with the node's address.
        outside: The one with its outside address, or empty.
    """

    me: Node
    interface: str
    outside: str


def steps(overlay: Overlay, place: Place, found: Found) -> list[Step]:
    """Return what is to be done, nothing when all is as it should be."""
    changes = [
        *_switch(overlay, found),
        *(_underlay(place, found) if overlay.datapath == "netdev" else ()),
        *_pod_bridge(overlay, place.me, found),
        *_tunnels(overlay, place.me, found),
        *_routing(overlay, place, found),
        *_cni(overlay, place.me, found),
    ]
    switch = (found.switches or {}).get(names.SWITCH)
    done = mark(COMPLETE, found.boot)
    if not changes and switch and switch.mark == done:
        return []
    if switch:
        changes.insert(0, _marked(f"begin: {names.SWITCH} is marked as being built", mark(BUILDING, found.boot)))
    return [*changes, _marked("end: it is complete", done)]


def mark(state: str, boot: str) -> str:
    """Return how far it is, as it is written on the switch.

    The kernel's parts are gone after a boot while Open vSwitch's are still there, which is no half-done work of anybody's.
    """
    return f"{state} {boot}"


def _marked(what: str, text: str) -> Step:
    return Step(what, (_vsctl("set", "bridge", names.SWITCH, f'external_ids:{names.MARK}="{text}"'),))


def _switch(overlay: Overlay, found: Found) -> Iterator[Step]:
    if names.SWITCH not in (found.switches or {}):
        words = (*_new_switch(names.SWITCH, overlay.datapath), f'external_ids:{names.MARK}="{mark(BUILDING, found.boot)}"')
        yield Step(f"bridge {names.SWITCH}, datapath {overlay.datapath}", (_vsctl(*words),))
    if names.UPLINK not in found.ports:
        words = ("add-port", names.SWITCH, names.UPLINK, "--", "set", "interface", names.UPLINK, "type=internal")
        yield Step(f"port {names.UPLINK} towards the pods", (_vsctl(*words, f"mtu_request={overlay.mtu}"),))
    elif (link := found.links.get(names.UPLINK)) and link.mtu != overlay.mtu:
        words = ("set", "interface", names.UPLINK, f"mtu_request={overlay.mtu}")
        yield Step(f"MTU {overlay.mtu} of {names.UPLINK}", (_vsctl(*words),))


def _new_switch(name: str, datapath: str) -> tuple[str, ...]:
    # No spanning tree: split horizon leaves no loop, and a tree would block a tunnel and take 5 s over each change.
    settings = (f"datapath_type={datapath}", "fail_mode=standalone", "stp_enable=false", "rstp_enable=false")
    return ("add-br", name, "--", "set", "bridge", name, *settings)


def _underlay(place: Place, found: Found) -> Iterator[Step]:
    """Open vSwitch's own datapath reaches the underlay through a bridge that has the node's address."""
    link = found.links[place.interface]
    if place.interface == names.UNDERLAY_SWITCH:
        return
    routes = [route for route in found.routes if route.device == link.name and route.protocol != "kernel"]
    taken = {
        "interface": link.name,
        "addresses": [str(address) for address in link.addresses],
        "routes": [route_words(route.destination, route.gateway, route.metric) for route in routes],
    }
    there = names.UNDERLAY_SWITCH in (found.switches or {})
    words = () if there else (*_new_switch(names.UNDERLAY_SWITCH, "netdev"), f"external_ids:{names.MARK}=underlay", "--")
    yield Step(
        f"bridge {names.UNDERLAY_SWITCH} takes {' '.join(map(str, link.addresses))} over from {link.name}",
        (
            _vsctl(*words, "--may-exist", "add-port", names.UNDERLAY_SWITCH, link.name),
            *moving(link.name, names.UNDERLAY_SWITCH, taken),
        ),
        ((names.moved(), json.dumps(taken)),),
    )


def moving(source: str, target: str, taken: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the commands that carry addresses and routes from one interface to another."""
    return (
        *([("ip", "-4", "address", "flush", "dev", source)] if source else []),
        ("ip", "link", "set", target, "up"),
        *(("ip", "address", "replace", address, "dev", target) for address in taken["addresses"]),
        *(("ip", "route", "replace", *route, "dev", target) for route in taken["routes"]),
    )


def route_words(destination: str, gateway: str, metric: int) -> list[str]:
    """Return a route as iproute2 takes it, but for its interface."""
    return [destination, *(["via", gateway] if gateway else []), *(["metric", str(metric)] if metric else [])]


def _pod_bridge(overlay: Overlay, me: Node, found: Found) -> Iterator[Step]:
    bridge = names.POD_BRIDGE
    link = found.links.get(bridge)
    if link is None:
        making = ("ip", "link", "add", bridge, "address", me.mac, "type", "bridge", "stp_state", "0")
        yield Step(f"bridge {bridge} for the pods", (making, ("ip", "link", "set", bridge, "alias", names.MARK)))
        link = Link(bridge, 0, me.mac, is_up=False)
    if link.mtu != overlay.mtu:
        yield Step(f"MTU {overlay.mtu} of {bridge}", (("ip", "link", "set", bridge, "mtu", str(overlay.mtu)),))
    if link.mac != me.mac:
        yield Step(f"{bridge} has {me.mac}", (("ip", "link", "set", bridge, "address", me.mac),))
    address = f"{me.gateway}/{overlay.pods.prefixlen}"
    for old in link.addresses:
        if str(old) != address:
            yield Step(f"{bridge} has {old} no more", (("ip", "address", "del", str(old), "dev", bridge),))
    if address not in map(str, link.addresses):
        yield Step(f"{bridge} has {address}", (("ip", "address", "add", address, "dev", bridge),))
    if not link.is_up:
        yield Step(f"{bridge} is up", (("ip", "link", "set", bridge, "up"),))
    uplink = found.links.get(names.UPLINK)
    if uplink is None or uplink.master != bridge or not uplink.is_up or uplink.hairpin:
        words = ("ip", "link", "set", names.UPLINK, "master", bridge, "up")
        off = ("ip", "link", "set", names.UPLINK, "type", "bridge_slave", "hairpin", "off")
        yield Step(f"{names.UPLINK} joins {bridge} to {names.SWITCH}, hairpin off", (words, off))


def _tunnels(overlay: Overlay, me: Node, found: Found) -> Iterator[Step]:
    others = {other.tunnel: other for other in overlay.others(me)}
    for port in found.tunnels():
        if port.name not in others:
            gone = f"no tunnel {port.name} to {port.options.get('remote_ip')} any more"
            yield Step(gone, (_vsctl("--if-exists", "del-port", names.SWITCH, port.name),))
    for name, other in others.items():
        port = tunnel(overlay, other)
        have = found.ports.get(name)
        if have and replace(have, bfd_status={}, error="") == port:
            continue
        yield Step(
            f"tunnel {name} to {other.name}, {other.address}",
            (
                _vsctl(
                    *("--may-exist", "add-port", names.SWITCH, name, "--", "set", "interface", name, "type=vxlan"),
                    *(f"options:{key}={value}" for key, value in port.options.items()),
                    *(f"bfd:{key}={value}" for key, value in port.bfd.items()),
                    # Split horizon: what came by one tunnel leaves by none, so the mesh has no loop.
                    *("--", "set", "port", name, "protected=true"),
                ),
            ),
        )


def tunnel(overlay: Overlay, other: Node) -> Port:
    """Return the port to another node as it should be."""
    return Port(
        name=other.tunnel,
        bridge=names.SWITCH,
        kind="vxlan",
        options={"remote_ip": str(other.address), "key": str(overlay.vni)},
        bfd={"enable": "true", "min_rx": str(BFD_MS), "min_tx": str(BFD_MS)},
        protected=True,
    )


def _routing(overlay: Overlay, place: Place, found: Found) -> Iterator[Step]:
    if not found.forwarding:
        yield Step("the kernel forwards", files=((FORWARDING, "1\n"),))
    # Pods of all nodes are on one link: an answer of a Service comes over bridges alone, and must be given its address.
    if found.filtering is None:
        yield Step("the kernel's module br_netfilter", (("modprobe", "br_netfilter"),))
    if not found.filtering:
        yield Step("what is bridged passes the rules of Services and policies", files=((BRIDGED, "1\n"),))
    text, known = wanted.rules(overlay, place.me, place.outside)
    if found.rules != known:
        yield Step("rules for who leaves and who comes from outside", (("nft", "-f", "-"),), given=text)
    wish = {}
    entrance = overlay.entrance
    if entrance and entrance.outside and entrance is not place.me:
        wish = {str(entrance.outside.network): str(entrance.gateway)}
    have = {route.destination: route.gateway for route in found.our_routes()}
    for destination, gateway in have.items():
        if wish.get(destination) != gateway:
            old = ("ip", "route", "del", destination, "via", gateway, "proto", names.PROTOCOL)
            yield Step(f"no route {destination} by {gateway} any more", (old,))
    for destination, gateway in wish.items():
        if have.get(destination) != gateway:
            new = ("ip", "route", "add", destination, "via", gateway, "dev", names.POD_BRIDGE, "proto", names.PROTOCOL)
            yield Step(f"route {destination} by {gateway}", (new,))


def _cni(overlay: Overlay, me: Node, found: Found) -> Iterator[Step]:
    text = wanted.conflist(overlay, me, names.cni_leases())
    if found.conflist != text:
        yield Step(f"{names.cni_configuration()}", files=((names.cni_configuration(), text),))


def _vsctl(*words: str) -> tuple[str, ...]:
    return ("ovs-vsctl", "--timeout=10", *words)
