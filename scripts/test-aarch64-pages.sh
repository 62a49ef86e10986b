#!/usr/bin/env bash
# Kernels with pages of 16 and 64 KiB, as far as qemu-aarch64 can play them. Called by scripts/test-aarch64.sh, which has built
# the tests in $BUILD_DIR/aarch64.
#
# With -p qemu tells the program of such pages and gives out memory in them. It does not refuse what such a kernel refuses (an
# mprotect of a part of a page), so its trace of the calls is read: each must be at a whole page.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${BUILD_DIR:-build}/aarch64
root=/usr/aarch64-linux-gnu
traces=$out/pages
mkdir -p "$traces"

# TEST, or TEST:FILTER of what to leave out.
tests=(
    test_port
    test_context
    test_copystack
    test_release
    test_stack_memory
    test_resume_yield
    # (A limit of the address space is the emulator's, too.)
    'test_create:*OutOfMemory*:*WorksAgainAfterMemory*:*NoMemoryForTheStacks*'
)

die() {
    echo "aarch64: pages: $*" >&2
    exit 1
}

passed=0
# run SIZE ENDS TEST[:FILTER]: ENDS is how the address of a whole page of that size ends.
run() {
    local size=$1 ends=$2 name=${3%%:*} filter=* variant log
    [[ $3 == *:* ]] && filter="-${3#*:}"
    for variant in static shared; do
        log=$traces/$name.$variant.$size
        timeout 300 qemu-aarch64 -p "$size" -strace -L $root -E "LD_LIBRARY_PATH=$root/lib:$out/lib" \
            "$out/cpp_tests/${name}_$variant" "--gtest_filter=$filter" >"$log" 2>&1 ||
            die "$name, $variant, pages of $size: $(grep -v '^[0-9]* [a-z_0-9]*(' "$log" | tail -n 30)"
        if grep -E '(mprotect|madvise|munmap)\(0x' "$log" | grep -vE "(mprotect|madvise|munmap)\\(0x[0-9a-f]*$ends,"; then
            die "$name, $variant: these calls are not at pages of $size"
        fi
        # (test_context makes its own stacks.)
        [[ $name == test_context ]] || grep -q "mprotect(0x[0-9a-f]*,65536,PROT_NONE)" "$log" ||
            die "$name, $variant, pages of $size: no guard of 64 KiB was seen"
        passed=$((passed + 1))
    done
}

for test in "${tests[@]}"; do
    run 16384 '[048c]000' "$test"
    run 65536 0000 "$test"
done
echo "aarch64: pages: $passed passed, with pages of 16 and of 64 KiB"
