#!/bin/sh
# Takes from a connector's packages what it never loads: 264 MB become 150. The dashboards, which read more of Arrow, have a whole one.
#
#     slim.sh FOLDER amd64|arm64
set -eu
cd "$1"
case $2 in
amd64) strip=x86_64-linux-gnu-strip ;;
arm64) strip=aarch64-linux-gnu-strip ;;
esac

rm -rf numpy/f2py numpy/_core/_simd.*
find pygments/lexers pygments/styles -type f ! -name '_*' -delete
cd pyarrow
rm -rf libarrow_python.so libarrow_python.so.*.*.* ./*orc* ./*parquet* ./*dataset* ./*acero* ./*substrait* _compute.* _csv.* _json.* _fs.*
cd ..

# Not those that auditwheel has moved (numpy.libs): strip breaks them. And first, for what patchelf has moved it breaks, too.
find . -name '*.libs' -prune -o -type f \( -name '*.so' -o -name '*.so.*' \) -exec "$strip" --strip-unneeded {} +

# Arrow's Python module is linked against all of Arrow and uses its core; what is missing then would be missed at the first import.
cd pyarrow
for library in lib.cpython-*.so libarrow_python.so.*; do
    patchelf --print-needed "$library" | grep -E 'parquet|dataset|acero|substrait' | while read -r name; do
        patchelf --remove-needed "$name" "$library"
    done
done
