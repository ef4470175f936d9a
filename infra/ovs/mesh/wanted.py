"""Texts that follow from the node list: the CNI configuration and the rules of nftables. No I/O."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mesh import names
from mesh.nodelist import Node, Overlay

VXLAN_PORT = 4789
"""RFC 7348 §4.2."""


def conflist(overlay: Overlay, me: Node, leases: Path) -> str:
    """Return the network of this node's pods, as CNI 1.0 has it.

    The plug-in ``bridge`` puts hairpin on the pods' ports only, which lets a pod reach itself through its service. Answers
    to who is outside go by the entrance at once, as the questions came: firewalls that see half a conversation drop it.
    """
    routes = [{"dst": "0.0.0.0/0"}]
    if overlay.entrance and overlay.entrance.outside:
        routes.append({"dst": str(overlay.entrance.outside.network), "gw": str(overlay.entrance.gateway)})
    addresses = {
        "subnet": str(overlay.pods),
        "rangeStart": str(me.first_pod),
        "rangeEnd": str(me.last_pod),
        "gateway": str(me.gateway),
    }
    bridge = {
        "type": "bridge",
        "bridge": names.POD_BRIDGE,
        "mtu": overlay.mtu,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "dataDir": str(leases), "ranges": [[addresses]], "routes": routes},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return json.dumps({"cniVersion": "1.0.0", "name": names.CNI_NETWORK, "plugins": [bridge, ports]}, indent=2) + "\n"


def rules(overlay: Overlay, me: Node, outside_interface: str) -> tuple[str, str]:
    """Return what nftables is to be given, and the mark by which it is known again.

    Pods leave the cluster under their node's address. At the entrance, who comes from outside reaches pods and services,
    and neither passes for one of them nor reaches a tunnel, which would believe anything; who comes from farther than the
    outside network is given the entrance's address, or the answers would go another way.
    """
    near = [str(overlay.pods)]
    guards = ""
    farther = ""
    if overlay.entrance and overlay.entrance.outside:
        near.append(str(overlay.entrance.outside.network))
    if me.outside:
        within = f"{{ {overlay.pods}, {overlay.underlay} }}"
        everybody = f"{{ {overlay.pods}, {overlay.underlay}, {me.outside.network} }}"
        guards = f"""
    chain arriving {{
        type filter hook prerouting priority mangle; policy accept;
        iifname "{outside_interface}" ip saddr {within} drop
        iifname "{outside_interface}" udp dport {VXLAN_PORT} drop
    }}
    chain passing {{
        type filter hook forward priority filter; policy accept;
        iifname "{outside_interface}" ip daddr {overlay.underlay} ct status & dnat == 0 drop
    }}"""
        farther = f'\n        ip saddr != {everybody} ip daddr {overlay.pods} oifname "{names.POD_BRIDGE}" masquerade'
    body = f"""{guards}
    chain leaving {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {overlay.pods} ip daddr != {{ {", ".join(near)} }} masquerade{farther}
    }}
"""
    mark = hashlib.sha256(body.encode()).hexdigest()[:16]
    table = f"table ip {names.TABLE}"
    return f'{table}\ndelete {table}\n{table} {{\n    comment "{mark}"{body}}}\n', mark
