#!/usr/bin/env bash
# What the tests need beside Python packages: other people's clients and servers, a browser, Apache Kafka.
# Installs what is missing when it may (as root, with apt-get), else says what is missing; the tests that need it are
# then skipped with that reason. With CI=true everything must be there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
need() { # command, package
    PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null || packages+=("$2")
}
need chromium chromium
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
need coap-client-notls libcoap3-bin
need redis-server redis-server
need curl curl
need collectd collectd-core
need openssl openssl
need node nodejs
need make make
need ssh openssh-client
need podman podman
need buildah buildah
need runc runc
need containerd containerd
need debootstrap debootstrap
need iptables iptables
need ipset ipset
need ethtool ethtool
[ -x /usr/lib/podman/netavark ] || packages+=(netavark)
[ -x /usr/lib/podman/aardvark-dns ] || packages+=(aardvark-dns)
need catatonit catatonit
need ovs-vswitchd openvswitch-switch
need nft nftables
need ip iproute2
need ping iputils-ping
need vagrant vagrant
need shellcheck shellcheck
[ -e /usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json ] || packages+=(vagrant-libvirt)
[ -e /usr/lib/cni/bridge ] || packages+=(containernetworking-plugins)
need cc gcc
[ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
[ -e /usr/share/i18n/locales/de_DE ] || packages+=(locales)
if [ "${CI:-}" = true ]; then
    need java default-jre-headless
    need mvn maven
    need npm npm
fi

if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing for the tests: ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        # A package must not start its service here: the tests start their own servers.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
            trap 'rm -f "$policy"' EXIT
        fi
        log=$(mktemp)
        if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
            tail -20 "$log" >&2
            exit 1
        fi
        rm -f "$log"
    else
        echo "Missing for the tests: ${packages[*]}. Tests that need them are skipped; as root: apt-get install ${packages[*]}" >&2
        [ "${CI:-}" != true ] || exit 1
    fi
fi

# Checks manifests; pins what we pin otherwise, so it has an environment of its own. It is made beside what follows.
checkov() {
    rm -rf .checkov
    python3 -m venv .checkov
    .checkov/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tests/infra/checkov.lock
    touch .checkov/ready
}
checking=
if [ tests/infra/checkov.lock -nt .checkov/ready ]; then
    checkov &
    checking=$!
fi

if command -v java >/dev/null && command -v mvn >/dev/null; then
    make --no-print-directory kafka
else
    echo "Java 17 or Maven is missing: the tests run against the embedded broker alone, not against Apache Kafka" >&2
    [ "${CI:-}" != true ] || exit 1
fi

if command -v npm >/dev/null; then
    if [ tests/peers/node/package-lock.json -nt tests/peers/node/node_modules/.package-lock.json ]; then
        npm ci --prefix tests/peers/node --ignore-scripts --no-audit --no-fund --silent
    fi
else
    echo "npm is missing: its CoAP client is not tested with" >&2
    [ "${CI:-}" != true ] || exit 1
fi

[ -z "$checking" ] || wait "$checking"
