#!/usr/bin/env bash
# Cross-builds for aarch64 and runs the C++ tests, static and shared, under qemu-aarch64. Called by `make test-aarch64`.
#
#   scripts/test-aarch64.sh [PATTERN]    PATTERN: a part of the names of the tests to run
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
    -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_BUILD_TESTS=ON -DCOLIB_BUILD_EXAMPLES=OFF \
    -DGTest_DIR="$out/gtest/lib/cmake/GTest" >/dev/null
"$cmake" --build "$out" -j"$jobs"

# What emulation cannot carry: a part of a test's name, and why.
skipped=(
    'fault_overflow|qemu ignores guards by madvise and has no core dumps of the program'
    'gdb|the debugger would see the emulator'
    'consumer|builds for this machine'
    'process_exec|the kernel cannot start programs for another processor'
    'process_dlopen|starts programs for another processor'
)
exclude=
for line in "${skipped[@]}"; do
    echo "aarch64: skipped: ${line%%|*}: ${line#*|}"
    exclude+=${exclude:+|}${line%%|*}
done
echo "aarch64: skipped $("$cmake" -E chdir "$out" ctest -N -R "$exclude" | sed -n 's/^Total Tests: //p') tests in all"
ctest --test-dir "$out" -j"$jobs" --output-on-failure -E "$exclude" ${1:+-R "$1"}
