#!/usr/bin/env bash
# What the machines must know and nobody else: an authority of the cluster's own, a certificate for each node, the token with
# which nodes join. Makes what is missing in secrets/ and leaves the rest alone.
#   secrets.sh NAME,ADDRESS[,ADDRESS]…     one argument for each node
# A machine is given its own folder secrets/NAME; the authority's key stays here.
set -euo pipefail
cd "$(dirname "$0")"
umask 077

readonly days=825
mkdir -p secrets
cd secrets

new_key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -e ca.crt ]; then
    new_key ca.key
    openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=Isotherm cluster" -out ca.part \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
    mv ca.part ca.crt
fi
[ -e token ] || { openssl rand -hex 32 >token.part && mv token.part token; }

for node in "$@"; do
    IFS=, read -r -a parts <<<"$node"
    name=${parts[0]}
    [[ $name =~ ^[a-z0-9-]+$ && ${#parts[@]} -ge 2 ]] || { echo "secrets.sh: $node is not NAME,ADDRESS" >&2; exit 2; }
    names="DNS:$name"
    for address in "${parts[@]:1}"; do names+=",IP:$address"; done
    mkdir -p "$name"
    cp ca.crt token "$name/"
    # Made anew when the node has got another address.
    if [ ! -e "$name/node.crt" ] || [ "$(cat "$name/names" 2>/dev/null)" != "$names" ]; then
        new_key "$name/node.key"
        openssl req -new -key "$name/node.key" -subj "/CN=$name" -out "$name/request"
        openssl x509 -req -in "$name/request" -CA ca.crt -CAkey ca.key -days "$days" -out "$name/node.part" \
            -extfile <(printf 'subjectAltName=%s\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n' \
                "$names") 2>/dev/null
        mv "$name/node.part" "$name/node.crt"
        rm "$name/request"
        echo "$names" >"$name/names"
    fi
done
