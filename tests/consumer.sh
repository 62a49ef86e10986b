#!/usr/bin/env bash
# Builds the programs of tests/consumer, outside this tree, in every way that a service can come by
# the library, with each compiler that is installed, and runs them.
#
# CARGO_TARGET_DIR (default: target/) is built in at most once; CARGO and CMAKE name the programs.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cmake=${CMAKE:-cmake}
target=$(realpath -m "${CARGO_TARGET_DIR:-$top/target}")
export CARGO_TARGET_DIR=$target
PATH=$PATH:$(dirname "${CARGO:-cargo}"):$HOME/.cargo/bin # rustc lies beside cargo
soname=libcolib.so.0.5
# What a parent make or cmake wants of its own builds is no business of these.
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR CFLAGS CXXFLAGS LDFLAGS CC CXX CMAKE_GENERATOR

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp -r "$top/tests/consumer" "$tmp/src"
src=$tmp/src
prefix=$tmp/prefix

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# quiet COMMAND...: its output is shown only if it fails.
quiet() {
    if ! "$@" >"$tmp/log" 2>&1; then
        cat "$tmp/log" >&2
        fail "$*"
    fi
}

# check WHAT KIND PROGRAM: the program says what it should and is linked as KIND tells.
check() {
    local what=$1 kind=$2 program=$3 expected said needed
    case $(basename "$program") in
    c_*) expected="C consumer: ok" ;;
    *) expected="C++ consumer: ok" ;;
    esac
    said=$("$program" 2>&1) || fail "$what: $program ended with status $?: $said"
    [[ $said == "$expected" ]] || fail "$what: $program said '$said'"
    needed=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(libcolib.*\)\]/\1/p')
    case $kind in
    shared) [[ $needed == "$soname" ]] || fail "$what: $program needs '$needed', not $soname" ;;
    static) [[ -z $needed ]] || fail "$what: $program needs $needed" ;;
    esac
    printf 'ok  %-52s %s\n' "$what" "$(basename "$program")"
}

# cmake_project CC CXX GENERATOR USES CACHE_ENTRY...
cmake_project() {
    local cc=$1 cxx=$2 generator=$3 uses=$4 build=$tmp/build.$1.$4 kind
    shift 4
    quiet "$cmake" -S "$src" -B "$build" -G "$generator" -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" \
        -DCONSUMER_USES="$uses" "$@"
    quiet "$cmake" --build "$build"
    for kind in static shared; do
        check "$uses, $kind, $cc, $generator" $kind "$build/c_$kind"
        check "$uses, $kind, $cc, $generator" $kind "$build/cxx_$kind"
    done
    if [[ $uses == subdirectory ]]; then
        check "subdirectory, the original's names, $cc" static "$build/cxx_old_names"
    fi
}

# by_hand CC CXX WHAT KIND FLAG...: one command each, the flags after the source as old makefiles have them.
by_hand() {
    local cc=$1 cxx=$2 what=$3 kind=$4
    shift 4
    quiet "$cc" "$src/main.c" -o "$tmp/c_program" "$@"
    check "$what, $cc" "$kind" "$tmp/c_program"
    quiet "$cxx" "$src/main.cpp" -o "$tmp/cxx_program" "$@"
    check "$what, $cxx" "$kind" "$tmp/cxx_program"
}

compilers=()
for pair in gcc:g++ clang:clang++; do
    if command -v "${pair%:*}" >/dev/null && command -v "${pair#*:}" >/dev/null; then
        compilers+=("$pair")
    else
        echo "not tested, as it is not installed: ${pair/:/ and }"
    fi
done
((${#compilers[@]})) || fail "no compiler found"
generators=("Unix Makefiles")
if command -v ninja >/dev/null; then generators+=(Ninja); else echo "not tested, as it is not installed: Ninja"; fi

# ---- installed by CMake and by make: the same files -------------------------------------------------

quiet "$cmake" -S "$top" -B "$tmp/build" -DCOLIB_CARGO_TARGET_DIR="$target" -DCOLIB_BUILD_EXAMPLES=OFF \
    -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib
quiet "$cmake" --build "$tmp/build"
quiet "$cmake" --install "$tmp/build"
quiet make -C "$top" install DESTDIR="$tmp/stage" PREFIX="$prefix"
quiet diff -r "$prefix" "$tmp/stage$prefix"
quiet make -C "$top" uninstall DESTDIR="$tmp/stage" PREFIX="$prefix"
[[ -z $(find "$tmp/stage" ! -type d) ]] || fail "make uninstall leaves files: $(find "$tmp/stage" ! -type d)"
echo "ok  make install and cmake --install put the same files, make uninstall takes all of them out"

recorded=$(readelf -d "$prefix/lib/libcolib.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[[ $recorded == "$soname" ]] || fail "the soname of libcolib.so is '$recorded'"
echo "ok  the soname is $soname"

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' "$top/Cargo.toml" | head -n 1)
[[ $(pkg-config --modversion colib) == "$version" ]] || fail "pkg-config's version is not $version"

said=$("$cmake" -S "$src" -B "$tmp/build.elsewhere" -DCONSUMER_USES=package -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_SYSTEM_NAME=Linux \
    -DCMAKE_SYSTEM_PROCESSOR=s390x 2>&1) && fail "find_package takes a library for another processor"
[[ $said == *" for $(uname -m)"* ]] || fail "find_package does not say what the library is for: $said"
for name in "$(uname -m | tr a-z A-Z)" our-board; do # a toolchain file's own word
    "$cmake" -S "$src" -B "$tmp/build.named.$name" -DCONSUMER_USES=package -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_SYSTEM_PROCESSOR="$name" >"$tmp/said" 2>&1 || fail "find_package refuses its library to a processor called $name: $(cat "$tmp/said")"
done
said=$("$cmake" -S "$top" -B "$tmp/build.nowhere" -DCOLIB_CARGO=/nowhere/cargo 2>&1) && fail "cmake takes a cargo that is not there"
[[ $said == *"there is no /nowhere/cargo"* ]] || fail "cmake does not say that there is no such cargo: $said"
echo "ok  cmake refuses a library for another processor, and a cargo that is not there"

private=$(pkg-config --static --libs colib)
wanted=$(cd "$top" && rustc --print native-static-libs --crate-type staticlib -o "$tmp/empty.a" - </dev/null 2>&1 |
    sed -n 's/.*native-static-libs: //p')
[[ -n $wanted ]] || fail "rustc does not say what a static library needs"
for lib in $wanted; do
    # The compiler adds these itself, in the variant that fits.
    [[ $lib == -lc || $lib == -lgcc_s ]] && continue
    [[ " $private " == *" $lib "* ]] || fail "rustc's static libraries need $lib; colib.pc has '$private'"
done
echo "ok  colib.pc has all that rustc's static libraries need"

# ---- every way of linking, by every compiler --------------------------------------------------------

quiet make -C "$top" lib
i=0
for pair in "${compilers[@]}"; do
    cc=${pair%:*} cxx=${pair#*:}
    generator=${generators[i++ % ${#generators[@]}]}

    cmake_project "$cc" "$cxx" "$generator" subdirectory -DCOLIB_SOURCE_DIR="$top" -DCOLIB_CARGO_TARGET_DIR="$target"
    cmake_project "$cc" "$cxx" "$generator" package -DCMAKE_PREFIX_PATH="$prefix"

    # shellcheck disable=SC2046 # pkg-config answers with several words
    LD_LIBRARY_PATH=$prefix/lib by_hand "$cc" "$cxx" "pkg-config, shared" shared $(pkg-config --cflags --libs colib)
    # shellcheck disable=SC2046
    # shellcheck disable=SC2046 # pkg-config answers with several words
    by_hand "$cc" "$cxx" "pkg-config, colib-static" static $(pkg-config --cflags --libs colib-static)
    by_hand "$cc" "$cxx" "pkg-config, static" static -Wl,-Bstatic $(pkg-config --cflags --libs colib) \
        -Wl,-Bdynamic $(pkg-config --static --libs-only-l colib | sed 's/-lcolib//')

    # As the makefiles of the original's users have it.
    old=(-I"$top/include" -L"$top/lib" -lcolib -lpthread -ldl)
    by_hand "$cc" "$cxx" "old makefile" static "${old[@]}"
    by_hand "$cc" "$cxx" "old makefile, -no-pie" static -no-pie "${old[@]}"
    by_hand "$cc" "$cxx" "old makefile, -rdynamic -O2" static -rdynamic -O2 "${old[@]}"
    by_hand "$cc" "$cxx" "old makefile, -static-libstdc++" static -static-libstdc++ "${old[@]}"
    by_hand "$cc" "$cxx" "old makefile, -static-libstdc++ -static-libgcc" static -static-libstdc++ -static-libgcc "${old[@]}"
    by_hand "$cc" "$cxx" "old makefile, all static" static -static "${old[@]}"
    LD_LIBRARY_PATH=$top/solib by_hand "$cc" "$cxx" "old makefile, shared" shared \
        -I"$top/include" -L"$top/solib" -lcolib -lpthread -ldl
done
echo "all consumers work"
