#!/bin/sh
# Debian packages, unpacked into a folder and left alone: nothing of them is run, so they may be for another processor.
#
#     debian.sh FOLDER amd64|arm64 PACKAGE…
set -eu
folder=$1 arch=$2
shift 2

downloads=$(mktemp -d)
chmod 755 "$downloads"
cd "$downloads"
for package in "$@"; do
    apt-get download -qq "$package:$arch" 2>/dev/null || apt-get download -qq "$package:all"
done
mkdir -p "$folder/var/lib/dpkg/status.d"
for file in *.deb; do
    dpkg-deb --extract "$file" "$folder"
    # Where scanners look for packages in images without dpkg.
    dpkg-deb --field "$file" >"$folder/var/lib/dpkg/status.d/$(dpkg-deb --field "$file" Package)"
done

cd "$folder"
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/man usr/share/lintian usr/share/bug usr/share/doc-base usr/share/bash-completion usr/share/gcc usr/share/gdb \
    usr/share/binfmts usr/lib/binfmt.d usr/lib/valgrind usr/lib/systemd lib/systemd etc/init.d etc/cron* etc/logrotate.d etc/update-motd.d
