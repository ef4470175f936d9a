#!/bin/sh
# Python and what it needs of Debian, unpacked into a folder: nothing else is in the image, so there is little to mend in it.
#
#     python.sh FOLDER amd64|arm64
set -eu
folder=$1 arch=$2
packages="base-files ca-certificates gcc-12-base libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal
libpython3.11-stdlib libssl3 libstdc++6 libuuid1 media-types netbase python3.11-minimal tini zlib1g"

downloads=$(mktemp -d)
chmod 755 "$downloads"
cd "$downloads"
for package in $packages; do
    apt-get download -qq "$package:$arch" 2>/dev/null || apt-get download -qq "$package:all"
done
mkdir -p "$folder/var/lib/dpkg/status.d"
for file in *.deb; do
    dpkg-deb --extract "$file" "$folder"
    # Where scanners look for packages in images without dpkg.
    dpkg-deb --field "$file" >"$folder/var/lib/dpkg/status.d/$(dpkg-deb --field "$file" Package)"
done

cd "$folder"
lib=usr/lib/python3.11
ln -s python3.11 usr/bin/python3
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/man usr/share/lintian usr/share/bug usr/share/doc-base usr/share/python-wheels usr/share/bash-completion \
    usr/lib/*/gconv usr/lib/*/audit usr/lib/valgrind etc/apt etc/cron* etc/logrotate.d usr/sbin etc/kernel \
    usr/bin/tini-static usr/share/gcc usr/share/gdb usr/share/base-files usr/share/binfmts usr/lib/binfmt.d etc/update-motd.d \
    $lib/ensurepip $lib/lib2to3 $lib/sqlite3 $lib/lib-dynload/_sqlite3* $lib/test $lib/pydoc_data $lib/idlelib $lib/tkinter $lib/turtledemo $lib/__pycache__
cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
python3 -m compileall -q --invalidation-mode unchecked-hash $lib

printf 'root:x:0:0:root:/root:/sbin/nologin\nisotherm:x:65532:65532:Isotherm:/tmp:/sbin/nologin\n' >etc/passwd
printf 'root:x:0:\nisotherm:x:65532:\n' >etc/group
mkdir -p tmp var/lib/isotherm
chmod 1777 tmp
chown 65532:65532 var/lib/isotherm
