"""What our parts are called on a node, and where its files are."""

from __future__ import annotations

import os
from pathlib import Path

MARK = "isotherm-overlay"
"""Whatever has this on it is ours: an external id of Open vSwitch's bridges, the alias of the Linux bridge."""

SWITCH = "br-pod"
"""Open vSwitch's bridge: the tunnels, and one port towards the pods."""

UNDERLAY_SWITCH = "br-phy"
"""With the datapath netdev: the bridge that takes the interface and its address over, because tunnels start from there."""

UPLINK = "ovsup"
"""The port of SWITCH that is also one of POD_BRIDGE."""

POD_BRIDGE = "cni0"
"""The Linux bridge on which the CNI plug-in puts the pods."""

TABLE = "isotherm_overlay"
"""Our table of nftables."""

PROTOCOL = "157"
"""By which our routes are told from others' (rtnetlink(7): above 4, and free in /etc/iproute2/rt_protos)."""

CNI_NETWORK = "isotherm"
CONFLIST = "10-isotherm.conflist"


def cni_configuration() -> Path:
    """Where container run-times look for networks."""
    return Path(os.environ.get("OVERLAY_CNI_CONFIGURATION", "/etc/cni/net.d")) / CONFLIST


def cni_leases() -> Path:
    """Where the plug-in host-local keeps which pod has which address."""
    return Path(os.environ.get("OVERLAY_CNI_LEASES", "/var/lib/cni/networks"))


def moved() -> Path:
    """Where it is kept what the datapath netdev has taken from an interface; gone after a boot, as is what was taken."""
    return Path(os.environ.get("OVERLAY_RUN", "/run/isotherm-overlay")) / "moved.json"
