#!/usr/bin/env bash
# Installs the cross build of $BUILD_DIR/aarch64, and cross-builds programs that use what was installed: by CMake with the
# toolchain file, and by the compiler alone. Called by scripts/test-aarch64.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(cd "${BUILD_DIR:-build}/aarch64" && pwd)
cmake=${CMAKE:-cmake}
root=/usr/aarch64-linux-gnu
soname=libcolib.so.0.5
prefix=$out/installed

die() {
    echo "aarch64: install: $*" >&2
    exit 1
}

rm -rf "$prefix" "$out/consumer"
"$cmake" --install "$out" --prefix "$prefix" >/dev/null
for file in include/co_routine.h include/coctx.h lib/libcolib.a lib/libcolib.so lib/$soname lib/$soname-gdb.py \
    lib/pkgconfig/colib.pc lib/pkgconfig/colib-static.pc lib/cmake/libco/libcoConfig.cmake; do
    [[ -s $prefix/$file ]] || die "$file is missing"
done
aarch64-linux-gnu-readelf -h "$prefix/lib/$soname" | grep -q 'Machine: *AArch64' || die "$soname is for another processor"

passed=0
# check PROGRAM KIND: the program says what it should and is linked as KIND tells.
check() {
    local expected="C++ consumer: ok" said needed
    [[ $(basename "$1") != c_* ]] || expected="C consumer: ok"
    said=$(timeout 60 qemu-aarch64 -L $root -E "LD_LIBRARY_PATH=$root/lib:$prefix/lib" "$1" 2>&1) || die "$1 ended with $?: $said"
    [[ $said == "$expected" ]] || die "$1 said '$said'"
    needed=$(aarch64-linux-gnu-readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(libcolib.*\)\]/\1/p')
    [[ $2 == shared && $needed == "$soname" || $2 == static && -z $needed ]] || die "$1 needs '$needed'"
    passed=$((passed + 1))
}

"$cmake" -S tests/consumer -B "$out/consumer" -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64-linux-gnu.cmake" \
    -DCONSUMER_USES=package -Dlibco_DIR="$prefix/lib/cmake/libco" >/dev/null
"$cmake" --build "$out/consumer" >/dev/null
for kind in static shared; do
    check "$out/consumer/c_$kind" $kind
    check "$out/consumer/cxx_$kind" $kind
done

cd "$out/consumer"
source=$OLDPWD/tests/consumer
# by_hand PROGRAM KIND COMPILER ARGUMENT...
by_hand() {
    local program=$1 kind=$2
    shift 2
    "$@" -o "$program" 2>warnings || die "$program: $(<warnings)"
    check "$program" "$kind"
}
# (The files have the place that the build was configured for.)
flags_of() {
    PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig pkg-config --define-variable=libdir="$prefix/lib" \
        --define-variable=includedir="$prefix/include" --cflags --libs "$1"
}
static=(-I"$prefix/include" "$prefix/lib/libcolib.a" -lpthread -ldl -lrt -lutil -lm)
read -ra packaged_static < <(flags_of colib-static)
read -ra packaged_shared < <(flags_of colib)
by_hand c_by_hand static aarch64-linux-gnu-gcc "$source/main.c" "${static[@]}"
by_hand cxx_by_hand static aarch64-linux-gnu-g++ "$source/main.cpp" "${static[@]}"
by_hand cxx_all_static static aarch64-linux-gnu-g++ "$source/main.cpp" "${static[@]}" -static
by_hand cxx_package_static static aarch64-linux-gnu-g++ "$source/main.cpp" "${packaged_static[@]}"
by_hand cxx_package_shared shared aarch64-linux-gnu-g++ "$source/main.cpp" "${packaged_shared[@]}"
echo "aarch64: install: $passed programs built from the installation run"
