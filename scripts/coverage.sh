#!/usr/bin/env bash
# Which lines of src/ the tests reach, C++ and Rust, clients and examples together: prints a table by file, and writes
# the lines that none reaches to build/coverage/never-reached.txt.
#
# The counters of a process are a mapping of its profile, so that children that end by _exit or a signal count, too.
# A process that never loads the library's constructor (a raw clone) or that closes its mappings does not. Naked
# functions (the switch, co_resume, co_yield_ct) have no counters and no lines in the table.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
cmake=${CMAKE:-cmake}
jobs=${JOBS:-$(nproc)}
PATH=$PATH:$(dirname "$cargo"):$HOME/.cargo/bin # rustc lies beside cargo
build=$(realpath -m "${BUILD_DIR:-build}")/coverage
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/coverage
unset MAKEFLAGS MFLAGS MAKELEVEL CARGO_BUILD_TARGET

die() {
    printf 'coverage: %s\n' "$*" >&2
    exit 1
}

# The tools that read what this compiler writes: of its own LLVM version or a later one.
llvm_wanted=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
find_tools() {
    local folder version
    for folder in "$(rustc --print sysroot)"/lib/rustlib/*/bin /usr/lib/llvm-*/bin; do
        [[ -x $folder/llvm-cov && -x $folder/llvm-profdata ]] || continue
        version=$("$folder/llvm-cov" --version | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p')
        if ((version >= llvm_wanted)); then
            echo "$folder"
            return
        fi
    done
    return 1
}
tools=$(find_tools) || die "no llvm-cov of LLVM $llvm_wanted or later: Debian's package llvm-$llvm_wanted has one"

export RUSTFLAGS="-C instrument-coverage -C llvm-args=-runtime-counter-relocation"
export LLVM_PROFILE_FILE=$build/profiles/%m%c.profraw
mkdir -p "$build"
rm -rf "$build/profiles"

echo "==== coverage: build"
# Compiling starts no program that has counters, but build scripts have them.
LLVM_PROFILE_FILE=/dev/null CARGO=$cargo "$cmake" -S . -B "$build/cmake" -DCMAKE_BUILD_TYPE=Release \
    -DCOLIB_BUILD_TESTS=ON -DCOLIB_BUILD_EXAMPLES=ON -DCOLIB_CARGO_TARGET_DIR="$target" >"$build/configure.log"
LLVM_PROFILE_FILE=/dev/null "$cmake" --build "$build/cmake" -j"$jobs" >"$build/build.log" 2>&1 ||
    { tail -n 40 "$build/build.log"; die "the build failed"; }
unit_tests=$(CARGO_TARGET_DIR=$target LLVM_PROFILE_FILE=/dev/null "$cargo" test --release --lib --no-run 2>&1 |
    tee "$build/unit-tests.log" | sed -n 's/.*Executable.*(\(.*\))/\1/p')
[[ -x $unit_tests ]] || { tail -n 40 "$build/unit-tests.log"; die "the unit tests cannot be built"; }

# Counters cost time, and a test that measures it may fail here alone: what it reached counts all the same.
echo "==== coverage: tests"
failed=0
"$unit_tests" >"$build/unit-tests.log" 2>&1 || { failed=1; tail -n 20 "$build/unit-tests.log"; }
(cd "$build/cmake" && ctest -j"$jobs" --timeout 240 >"$build/ctest.log" 2>&1) || failed=1
grep -E 'tests passed|Failed|Timeout' "$build/ctest.log" || true
if ((failed)); then echo "coverage: some tests failed under the counters; the figures are of what they reached"; fi

"$tools/llvm-profdata" merge -sparse "$build"/profiles/*.profraw -o "$build/all.profdata"
read_by=("$build/cmake/lib/libcolib.so" -object "$unit_tests" -instr-profile="$build/all.profdata")
ours=(--ignore-filename-regex='/rustc/|/\.cargo/|/fuzzing/')
"$tools/llvm-cov" export -format=lcov "${read_by[@]}" "${ours[@]}" >"$build/lines.info"

# list_lines: each file with its lines that were never reached, and what is there.
list_lines() {
    awk -v root="$PWD/" '
        /^SF:/ { path = substr($0, 4); name = path; sub(root, "", name); delete text; count = 0
                 while ((getline line < path) > 0) text[++count] = line
                 close(path); shown = 0 }
        /^DA:/ { split(substr($0, 4), field, ",")
                 if (field[2] == 0) {
                     if (!shown) { printf "\n%s\n", name; shown = 1 }
                     printf "%6d  %s\n", field[1], text[field[1]]
                 } }' "$build/lines.info"
}
list_lines >"$build/never-reached.txt"

awk -v root="$PWD/" '
    /^SF:/ { name = substr($0, 4); sub(root, "", name) }
    /^LF:/ { lines = substr($0, 4) }
    /^LH:/ { reached = substr($0, 4)
             printf "%6d %6d %6.1f %%  %s\n", lines, lines - reached, lines ? 100 * reached / lines : 100, name
             all += lines; hit += reached }
    BEGIN  { print " lines missed reached" }
    END    { printf "%6d %6d %6.1f %%  in all\n", all, all - hit, 100 * hit / all }' "$build/lines.info"
echo "never reached: $build/never-reached.txt"
