#!/usr/bin/env bash
# Cross-builds for riscv64, the standard library too, and runs the C++ tests, static and shared, under qemu-riscv64. Called by
# `make test-riscv64`.
#
#   scripts/test-riscv64.sh [PATTERN]    PATTERN: a part of the names of the tests to run
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/qemu.sh
# No distribution's toolchain has the standard library for this processor: cargo builds it from the distribution's sources.
export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind
build_tests riscv64 -DCOLIB_BUILD_EXAMPLES=OFF

[[ -z ${1:-} ]] || must_name_tests "$1"
leave_out riscv64
ctest --test-dir "$out" -j"$jobs" --output-on-failure -E "$exclude" ${1:+-R "$1"}
[[ -n ${1:-} ]] || COLIB_LIBDIR=$out/lib tests/gdb_stepped.sh riscv64
