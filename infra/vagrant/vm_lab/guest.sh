#!/usr/bin/env bash
# What a machine of `make vm-lab` does. It finds its name on the kernel's command line, and says on its console what came of
# each step: "LAB ok STEP", "LAB FAILED STEP", "LAB figure STEP: …". The first node tries the overlay, the others answer.
set -uo pipefail
lab=/root/lab
node=$(grep -o 'lab.node=[a-z0-9]*' /proc/cmdline | cut -d= -f2)
peers=$lab/tests/support/overlay_peers.py
nodes=/etc/isotherm/nodes.ini

say() { echo "LAB $*"; }
step() { # name, command…
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then say "ok $name"; else
        say "FAILED $name: $(tr '\n' ' ' <<<"$said" | tail -c 600)"
        return 1
    fi
}
until_so() { # seconds, command…
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}
setting() { # name, of this node
    sed -n "/^\[node $node\]/,/^\[node/p" "$lab/infra/ovs/nodes.ini" | sed -n "s/^$1 = //p"
}
in_pod() { ip netns exec pod "$@"; }

network() {
    hostname "$node"
    ip link set eth0 up
    ip address add "$(setting address)/24" dev eth0
    local outside
    outside=$(setting outside)
    if [ -n "$outside" ]; then
        ip link set eth1 up
        ip address add "$outside" dev eth1
    fi
}

provision() {
    install -D -m 644 "$lab/infra/ovs/nodes.ini" $nodes
    NODE=$node ISOTHERM=$lab "$lab/infra/vagrant/provision.sh" packages &&
        NODE=$node ISOTHERM=$lab "$lab/infra/vagrant/provision.sh" overlay && sync
}

# As a container run-time does it: the plug-in reads the network that the overlay has written.
pod() {
    ip netns add pod
    in_pod ip link set lo up
    python3 -c 'import json; all = json.load(open("/etc/cni/net.d/10-isotherm.conflist")); print(json.dumps(
        {**all["plugins"][0], "cniVersion": all["cniVersion"], "name": all["name"]}))' |
        CNI_COMMAND=ADD CNI_CONTAINERID=pod-$RANDOM CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
            /opt/cni/bin/bridge >/run/pod.json
}

address_of() { echo "10.244.$1.20"; }
answers() { in_pod ping -n -q -c 1 -W 1 "$@"; }
refuses() { [[ $(in_pod ping -n -c 1 -W 1 -M "do" -s "$2" "$1" 2>&1) == *"message too long"* ]]; }
bfd_is() { ovs-vsctl get interface "$1" bfd_status | grep -q " state=$2\|{state=$2"; }
kernel_datapath() { ovs-dpctl show | grep -q vxlan_sys_4789 && [ -d /sys/module/openvswitch ]; }

transfer() { # number of the node, MB
    local begin end
    begin=$(date +%s.%N)
    sent=$(in_pod python3 -S -E "$peers" send "$(address_of "$1")" 7000 "$2"000000) || return 1
    end=$(date +%s.%N)
    say "figure TCP to node $1: $(python3 -c "print(round($2 * 8 / ($end - $begin)))") Mbit/s"
    # The other side says what it got, on its own console; whoever reads both compares.
    say "sent $sent"
}

serve() {
    while :; do
        got=$(in_pod python3 -S -E "$peers" serve 0.0.0.0 7000 2>/dev/null | grep '^{')
        [ -z "$got" ] || say "got $got"
    done
}

first_node() {
    local number
    for number in 2 3; do
        step "pod of node $number answers" until_so 240 answers "$(address_of $number)" || continue
        step "1450 bytes pass whole to node $number" answers -M "do" -s 1422 "$(address_of $number)"
        step "1451 bytes are refused to node $number" refuses "$(address_of $number)" 1423
        until_so 20 bfd_is vx$number up
        transfer $number 20 || say "FAILED transfer to node $number"
    done
    step "overlay check" /opt/isotherm/ovs/overlay check --node "$node"
    step "up again changes nothing" grep -q 'nothing to change' <(/opt/isotherm/ovs/overlay up --node "$node")
    say "cut w1"
    step "the loss of node 2 is seen" until_so 60 bfd_is vx2 down
    step "node 3 is not disturbed" answers "$(address_of 3)"
    step "node 2 comes again after its boot" until_so 400 bfd_is vx2 up
    step "its pods answer" until_so 60 answers 10.244.2.1
    step "overlay check after the boot" until_so 30 /opt/isotherm/ovs/overlay check --node "$node"
    step "down" /opt/isotherm/ovs/overlay down
    step "nothing is left" test -z "$(ip -o link show | grep -E 'cni0|ovsup|br-pod|vxlan_sys')$(nft list tables)$(ovs-vsctl list-br)"
    say "done"
}

# The third node's second interface lies in the outside network: a client there is one of its namespaces.
client() {
    ip netns add client
    ip link set eth1 netns client
    ip netns exec client ip link set eth1 up
    ip netns exec client ip address add 192.168.57.1/24 dev eth1
    ip netns exec client ip route add 10.244.0.0/16 via 192.168.57.11
    step "outside: a pod of node 1 answers" until_so 240 ip netns exec client ping -c 1 -W 1 "$(address_of 1)"
    step "outside: a pod of node 2 answers" until_so 240 ip netns exec client ping -c 1 -W 1 "$(address_of 2)"
    say "client done"
}

say "boot $node, kernel $(uname -r), up for $(cut -d' ' -f1 /proc/uptime) s"
network
if [ -e $nodes ]; then
    step "$node: the overlay is back after a boot" until_so 120 systemctl is-active isotherm-overlay
else
    step "$node: provisioned" provision || exit 1
fi
step "$node: the kernel's datapath" until_so 30 kernel_datapath
step "$node: a pod" pod
case $node in
    cp1) first_node ;;
    w2) client & serve ;;
    *) serve ;;
esac
