#!/usr/bin/env bash
# Makes a machine a node: packages, overlay, k3s, images. May be run again, and then changes only what differs.
#   provision.sh all|packages|overlay|k3s|images
# Expects infra/ and the node's secrets in /isotherm and the node list in /etc/isotherm/nodes.ini. Variables: NODE, ROLE (server
# or agent), ADDRESS, OUTSIDE (of the server), SERVER, PODS, SERVICES, K3S, K3S_URL, MIRROR.
set -euo pipefail

readonly here=${ISOTHERM:-/isotherm}
readonly root=${ROOT:-}   # tests install elsewhere
readonly airgap=$root/var/lib/rancher/k3s/agent/images

say() { echo "provision: $*"; }
fail() { say "$*" >&2; exit 1; }

packages() {
    local wanted=(openvswitch-switch nftables iproute2 iputils-ping containernetworking-plugins python3 curl ca-certificates)
    local missing=() package
    for package in "${wanted[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then return; fi
    if [ -n "${MIRROR:-}" ]; then
        # shellcheck disable=SC1091
        . /etc/os-release
        rm -f /etc/apt/sources.list.d/*
        echo "deb $MIRROR/debian $VERSION_CODENAME main" >/etc/apt/sources.list
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Open vSwitch's kernel module, and bridges whose packets the service rules see: pods of one node are on one bridge.
kernel() {
    install -D -m 644 /dev/stdin "$root/etc/modules-load.d/isotherm.conf" <<<$'openvswitch\nvxlan\nbr_netfilter'
    install -D -m 644 /dev/stdin "$root/etc/sysctl.d/90-isotherm.conf" \
        <<<$'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1'
    modprobe -a openvswitch vxlan br_netfilter
    sysctl -q -p "$root/etc/sysctl.d/90-isotherm.conf"
}

overlay() {
    [ -e "$root/etc/isotherm/nodes.ini" ] || fail "there is no /etc/isotherm/nodes.ini: write the node list there first"
    kernel
    # Where container run-times look for plug-ins; Debian has them elsewhere.
    mkdir -p "$root/opt/cni/bin"
    ln -sf /usr/lib/cni/* "$root/opt/cni/bin/"
    rm -rf "$root/opt/isotherm/ovs"
    mkdir -p "$root/opt/isotherm"
    cp -r "$here/infra/ovs" "$root/opt/isotherm/ovs"
    install -D -m 644 "$here/infra/ovs/isotherm-overlay.service" "$root/etc/systemd/system/isotherm-overlay.service"
    systemctl daemon-reload
    systemctl enable -q openvswitch-switch isotherm-overlay
    # Said here and not by systemd, so that a refusal is seen.
    systemctl start openvswitch-switch
    "$root/opt/isotherm/ovs/overlay" up --node "$NODE"
    systemctl start isotherm-overlay
}

certificates() {
    local name
    for name in ca.crt node.crt node.key token; do
        [ -e "$here/secrets/$name" ] || fail "there is no $here/secrets/$name: secrets.sh makes it"
        install -D -m 600 "$here/secrets/$name" "$root/etc/isotherm/tls/$name"
    done
}

k3s_arch() {
    case $(uname -m) in
        x86_64) echo amd64 ;;
        aarch64) echo arm64 ;;
        *) fail "k3s is not known for $(uname -m)" ;;
    esac
}

# Its file name there; the list of checksums says which one it must be.
fetch() { # file, target
    local base=${K3S_URL}
    [ -z "${MIRROR:-}" ] || base=$MIRROR/k3s
    base+=/${K3S//+/%2B}
    local list sum
    list=$(curl -fsSL --retry 3 "$base/sha256sum-$(k3s_arch).txt") || fail "no checksums of k3s $K3S at $base"
    sum=$(awk -v file="$1" '$2 == file { print $1 }' <<<"$list")
    [ -n "$sum" ] || fail "$base has no checksum of $1"
    if ! sha256sum --status -c - <<<"$sum  $2" 2>/dev/null; then
        say "fetching $1 of k3s $K3S"
        mkdir -p "$(dirname "$2")"
        curl -fsSL --retry 3 -o "$2.part" "$base/$1" || fail "$base/$1 cannot be fetched"
        sha256sum --status -c - <<<"$sum  $2.part" || { rm -f "$2.part"; fail "$base/$1 is not what its checksum says"; }
        mv "$2.part" "$2"
    fi
    chmod 755 "$2"
}

k3s() {
    certificates
    local binary=k3s
    [ "$(k3s_arch)" = amd64 ] || binary=k3s-$(k3s_arch)
    fetch "$binary" "$root/usr/local/bin/k3s"
    [ -z "${MIRROR:-}" ] || fetch "k3s-airgap-images-$(k3s_arch).tar.zst" "$airgap/k3s.tar.zst"

    local unit flags=(--node-name="$NODE" --node-ip="$ADDRESS" --token-file=/etc/isotherm/tls/token)
    if [ "$ROLE" = server ]; then
        unit=k3s
        flags=(server "${flags[@]}" --flannel-backend=none "--disable=traefik,servicelb" --cluster-cidr="$PODS"
            --service-cidr="$SERVICES" --advertise-address="$ADDRESS" --node-external-ip="$OUTSIDE" --tls-san="$OUTSIDE"
            --write-kubeconfig-mode=0600)
    else
        unit=k3s-agent
        flags=(agent "${flags[@]}" --server="https://$SERVER:6443")
    fi
    install -D -m 644 /dev/stdin "$root/etc/systemd/system/$unit.service" <<UNIT
[Unit]
Description=k3s ($ROLE)
Wants=network-online.target
After=network-online.target isotherm-overlay.service

[Service]
Type=notify
# Not before the overlay: the CNI plug-in would make a bridge of its own. Restart tries again.
ExecStartPre=/usr/bin/systemctl is-active --quiet isotherm-overlay
ExecStart=/usr/local/bin/k3s ${flags[*]}
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable -q --now "$unit"
    if [ "$ROLE" = server ]; then
        # What browsers and devices outside see.
        "$root/usr/local/bin/k3s" kubectl create secret tls isotherm-tls --cert="$root/etc/isotherm/tls/node.crt" \
            --key="$root/etc/isotherm/tls/node.key" --dry-run=client -o yaml | "$root/usr/local/bin/k3s" kubectl apply -f -
    fi
}

images() {
    local tar found=0
    for tar in "$here"/infra/images/*.tar; do
        [ -e "$tar" ] || continue
        found=1
        say "loading ${tar##*/}"
        "$root/usr/local/bin/k3s" ctr images import "$tar"
    done
    [ $found = 1 ] || say "there is no infra/images/*.tar: Isotherm's images are not loaded"
}

case ${1:-} in
    all) packages; overlay; k3s; images ;;
    packages | overlay | k3s | images) "$1" ;;
    *) fail "say all, packages, overlay, k3s or images" ;;
esac
