#!/usr/bin/env bash
# Checked branches (BTI) and signed return addresses (PAC), under qemu-aarch64 with a processor that has both. Called by
# scripts/test-aarch64.sh, which has built the ordinary library in $BUILD_DIR/aarch64.
#
# Two libraries: the ordinary one, whose compiled functions have neither, in programs that have both; and one that
# has them throughout, the Rust standard library compiled anew. Debian's start files are not marked: what is to be guarded
# whole is linked without them (tests/protection). That the processor looks is shown by planted faults.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${BUILD_DIR:-build}/aarch64
mkdir -p "$out/protected"
out=$(cd "$out" && pwd)
work=$out/protected
cmake=${CMAKE:-cmake}
ordinary=$out/lib whole=$work/lib

die() {
    echo "aarch64: protection: $*" >&2
    exit 1
}

for source in start handle; do
    aarch64-linux-gnu-gcc -c "tests/protection/$source.S" -o "$work/$source.o"
done
guard=(-nostartfiles -Wl,-z,force-bti)

RUSTC=/usr/bin/rustc "$cmake" -S . -B "$work" -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64-linux-gnu.cmake" \
    -DCMAKE_BUILD_TYPE=Release -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_BUILD_EXAMPLES=OFF -DCOLIB_BUILD_TESTS=OFF \
    -DCOLIB_BRANCH_PROTECTION=ON \
    "-DCOLIB_RUSTC_ARGS=-Zpre-link-arg=$work/handle.o;$(printf -- '-Clink-arg=%s;' "${guard[@]}")" >/dev/null
"$cmake" --build "$work"

marks() { aarch64-linux-gnu-readelf -nW "$1" 2>/dev/null | grep -c "AArch64 feature: .*$2" || true; }
objects=$(aarch64-linux-gnu-ar t "$whole/libcolib.a" | wc -l)
for mark in BTI PAC; do
    [[ $(marks "$whole/libcolib.a" $mark) == "$objects" ]] || die "an object of libcolib.a is not marked $mark"
done
[[ $(marks "$whole/libcolib.so" BTI) == 1 ]] || die "libcolib.so is not marked BTI"
[[ $(marks "$ordinary/libcolib.so" BTI) == 0 ]] || die "the ordinary library claims what it does not have"

aarch64-linux-gnu-g++ -O2 -g -Wall -Wextra -Werror -mbranch-protection=standard -Iinclude \
    -c tests/protection/program.cpp -o "$work/program.o"
links=(-lpthread -ldl -lrt -lutil -lm)

# Whether a program comes to its end ("passes"), or a signal stops it.
outcome() {
    local said
    said=$(timeout 60 qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu \
        -E "LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib:$library" "$work/$program" "$@" 2>&1) || true
    case $said in
    ran | "not stopped") echo passes ;;
    *"Illegal instruction"*) echo SIGILL ;;
    *"Segmentation fault"*) echo SIGSEGV ;;
    *) echo "$said" ;;
    esac
}

passed=0
# check PROGRAM LIBRARY OWN INSIDE RETURN ARGUMENTS...: how the three planted faults end, and how it is linked.
check() {
    program=$1 library=$2
    local expected=(passes "$3" "$4" "$5") modes=("" own library return) i result
    shift 5
    aarch64-linux-gnu-g++ "$@" "${links[@]}" -o "$work/$program" 2>"$work/$program.warnings" ||
        die "$(cat "$work/$program.warnings")"
    for i in 0 1 2 3; do
        result=$(outcome ${modes[i]:+"${modes[i]}"})
        [[ $result == "${expected[i]}" ]] || die "$program ${modes[i]}: ${expected[i]} was expected: $result"
        passed=$((passed + 1))
    done
    echo "aarch64: protection: $program: works; planted faults: ${expected[*]:1}"
}

from_start=("${guard[@]}" "$work/handle.o" "$work/start.o" "$work/program.o")
check ordinary_static "$ordinary" passes passes passes "$work/program.o" "$ordinary/libcolib.a"
check ordinary_shared "$ordinary" passes passes passes "$work/program.o" "$ordinary/libcolib.so"
check guarded_with_ordinary_shared "$ordinary" SIGILL passes passes "${from_start[@]}" "$ordinary/libcolib.so"
check whole_static "$whole" SIGILL SIGILL SIGSEGV "${from_start[@]}" "$whole/libcolib.a"
check whole_shared "$whole" SIGILL SIGILL SIGSEGV "${from_start[@]}" "$whole/libcolib.so"
echo "aarch64: protection: $passed passed"
