#!/usr/bin/env bash
# Cross-builds for riscv64, the standard library too, and runs the C++ tests, static and shared, under qemu-riscv64. Called by
# `make test-riscv64`.
#
#   scripts/test-riscv64.sh [PATTERN]    PATTERN: a part of the names of the tests to run
set -euo pipefail
cd "$(dirname "$0")/.."

out=${BUILD_DIR:-build}/riscv64
mkdir -p "$out"
out=$(cd "$out" && pwd)
jobs=${JOBS:-$(nproc)}
cmake=${CMAKE:-cmake}
toolchain=$PWD/cmake/riscv64-linux-gnu.cmake
# No distribution's toolchain has the standard library for this processor: cargo builds it from the distribution's sources.
export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind

# GoogleTest for that processor, from the distribution's sources.
if [[ ! -d $out/gtest ]]; then
    "$cmake" -S /usr/src/googletest -B "$out/gtest-build" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_INSTALL_PREFIX="$out/gtest" >/dev/null
    "$cmake" --build "$out/gtest-build" -j"$jobs" --target install >/dev/null
fi
RUSTC=/usr/bin/rustc "$cmake" -S . -B "$out" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release \
    -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_BUILD_TESTS=ON -DCOLIB_BUILD_EXAMPLES=OFF \
    -DGTest_DIR="$out/gtest/lib/cmake/GTest" >/dev/null
"$cmake" --build "$out" -j"$jobs"

source scripts/qemu-limits.sh
leave_out riscv64 "$out"
ctest --test-dir "$out" -j"$jobs" --output-on-failure -E "$exclude" ${1:+-R "$1"}
