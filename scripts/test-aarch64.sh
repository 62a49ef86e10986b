#!/usr/bin/env bash
# Cross-builds for aarch64 and runs the C++ tests and the examples, static and shared, under qemu-aarch64; then what is
# installed, protected branches, large pages, and gdb. Called by `make test-aarch64`.
#
#   scripts/test-aarch64.sh [PATTERN]    PATTERN: a part of the names of the tests to run, and nothing else then
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/qemu.sh
build_tests aarch64 -DCOLIB_BUILD_EXAMPLES=ON

[[ -z ${1:-} ]] || must_name_tests "$1"
leave_out aarch64
failures=()
# (Some measure times, and qemu itself ends now and then where threads and fork meet: once is not enough. ctest prints both runs.)
ctest --test-dir "$out" -j"$jobs" --output-on-failure --repeat until-pass:2 -E "$exclude" ${1:+-R "$1"} || failures+=("C++ tests and examples")
if [[ -z ${1:-} ]]; then
    unset GTEST_FILTER
    export BUILD_DIR=${BUILD_DIR:-build} COLIB_LIBDIR=$out/lib
    for part in scripts/test-aarch64-{install,protection,pages}.sh tests/gdb_aarch64.sh 'tests/gdb_stepped.sh aarch64'; do
        $part || failures+=("$part")
    done
fi
if ((${#failures[@]})); then
    printf 'aarch64: FAILED: %s\n' "${failures[@]}"
    exit 1
fi
echo "aarch64: all passed, but for what was skipped"
