#!/usr/bin/env bash
# Cross-builds for aarch64 and runs the C++ tests and the examples, static and shared, under qemu-aarch64; then what is
# installed, protected branches, large pages, and gdb. Called by `make test-aarch64`.
#
#   scripts/test-aarch64.sh [PATTERN]    PATTERN: a part of the names of the tests to run, and nothing else then
set -euo pipefail
cd "$(dirname "$0")/.."

out=${BUILD_DIR:-build}/aarch64
mkdir -p "$out"
out=$(cd "$out" && pwd)
jobs=${JOBS:-$(nproc)}
cmake=${CMAKE:-cmake}
toolchain=$PWD/cmake/aarch64-linux-gnu.cmake

# GoogleTest for that processor, from the distribution's sources.
if [[ ! -d $out/gtest ]]; then
    "$cmake" -S /usr/src/googletest -B "$out/gtest-build" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_INSTALL_PREFIX="$out/gtest" >/dev/null
    "$cmake" --build "$out/gtest-build" -j"$jobs" --target install >/dev/null
fi
RUSTC=/usr/bin/rustc "$cmake" -S . -B "$out" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release \
    -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_BUILD_TESTS=ON -DCOLIB_BUILD_EXAMPLES=ON \
    -DGTest_DIR="$out/gtest/lib/cmake/GTest" >/dev/null
"$cmake" --build "$out" -j"$jobs"

source scripts/qemu-limits.sh
leave_out aarch64 "$out"
failures=()
# (The examples' tests measure times: on a busy machine, and emulated, once is not enough.)
ctest --test-dir "$out" -j"$jobs" --output-on-failure -E "$exclude|^examples" ${1:+-R "$1"} || failures+=("C++ tests")
ctest --test-dir "$out" -j"$jobs" --output-on-failure --repeat until-pass:2 -R "^examples.*${1:-}" || failures+=(examples)
if [[ -z ${1:-} ]]; then
    export BUILD_DIR=${BUILD_DIR:-build} COLIB_LIBDIR=$out/lib
    for part in scripts/test-aarch64-{install,protection,pages}.sh tests/gdb_aarch64.sh; do
        "$part" || failures+=("$part")
    done
fi
if ((${#failures[@]})); then
    printf 'aarch64: FAILED: %s\n' "${failures[@]}"
    exit 1
fi
echo "aarch64: all passed, but for what was skipped"
