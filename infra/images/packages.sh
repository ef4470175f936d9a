#!/bin/sh
# The packages that one part kind adds, with the versions and hashes of the lock, for either processor.
#
#     packages.sh PART FOLDER amd64|arm64
set -eu
part=$1 folder=$2
case $3 in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*) echo "packages.sh: the processor is $3, expected amd64 or arm64" >&2 && exit 1 ;;
esac

python3 requirements.py "$part" <requirements.lock >"$part.txt"
mkdir -p "$folder"
[ -s "$part.txt" ] || exit 0
# Every tag up to the C library of Debian 12; pip takes each of them for itself alone.
take() { # requirements, processor
    platforms="--platform=manylinux2014_$2"
    for minor in $(seq 17 36); do platforms="$platforms --platform=manylinux_2_${minor}_$2"; done
    # shellcheck disable=SC2086
    /build/pip/bin/pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes --no-deps --no-compile \
        --only-binary=:all: --python-version=3.11 --implementation=cp $platforms --target="$folder" -r "$1"
}
if [ "$machine" = aarch64 ] && grep -q '^faust-streaming==' "$part.txt"; then
    # Faust has no wheel for it. What is compiled in that for the other are accelerators, which it goes without where they are not.
    awk '/^[^ ]/ { faust = /^faust-streaming==/ } faust' "$part.txt" >faust.txt
    awk '/^[^ ]/ { faust = /^faust-streaming==/ } !faust' "$part.txt" >others.txt
    take others.txt aarch64
    take faust.txt x86_64
    find "$folder/faust" -name '*.so' -delete
else
    take "$part.txt" "$machine"
fi
rm -rf "${folder:?}/bin" "${folder:?}/share"
find "$folder" -depth -type d -name tests -exec rm -rf {} +
# Arrow's ways to other people's clouds.
rm -rf "$folder"/pyarrow/*flight* "$folder"/pyarrow/*s3* "$folder"/pyarrow/*gcsfs* "$folder"/pyarrow/*azurefs* "$folder"/pyarrow/*hdfs* \
    "$folder"/pyarrow/*gandiva* "$folder"/pyarrow/include "$folder"/pyarrow/src "$folder"/pyarrow/*cpp_tests*
find "$folder" -type f -regextype egrep -regex '.*\.(pyx|pxd|pxi|pyi|c|cc|h|a)|.*/RECORD' -delete
python3 -m compileall -q --invalidation-mode unchecked-hash "$folder"
