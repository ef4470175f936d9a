#!/bin/sh
# Python and what it needs of Debian: nothing else is in the image, so there is little to mend in it.
#
#     python.sh FOLDER amd64|arm64
set -eu
folder=$1 arch=$2
here=$(dirname "$0")
"$here/debian.sh" "$folder" "$arch" base-files ca-certificates gcc-12-base libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 \
    libpython3.11-minimal libpython3.11-stdlib libssl3 libstdc++6 libuuid1 media-types netbase python3.11-minimal tini zlib1g

cd "$folder"
lib=usr/lib/python3.11
ln -s python3.11 usr/bin/python3
cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
rm -rf usr/lib/*/gconv usr/lib/*/audit usr/sbin lib/*/libmvec.so.* usr/bin/tini-static $lib/ensurepip $lib/lib2to3 $lib/sqlite3 $lib/lib-dynload/_sqlite3* \
    $lib/test $lib/pydoc_data $lib/__pycache__
python3 -m compileall -q --invalidation-mode unchecked-hash $lib

printf 'root:x:0:0:root:/root:/sbin/nologin\nisotherm:x:65532:65532:Isotherm:/tmp:/sbin/nologin\n' >etc/passwd
printf 'root:x:0:\nisotherm:x:65532:\n' >etc/group
mkdir -p tmp var/lib/isotherm
chmod 1777 tmp
chown 65532:65532 var/lib/isotherm
