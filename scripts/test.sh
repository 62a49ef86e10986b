#!/usr/bin/env bash
# All tests, as `make test` runs them: goes on after a failed step where it can, and sums up.
set -uo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
cmake=${CMAKE:-cmake}
build=${BUILD_DIR:-build}
jobs=${JOBS:-$(nproc)}
PATH=$PATH:$(dirname "$cargo"):$HOME/.cargo/bin # rustc lies beside cargo
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

summary=()
failed=0

# step NAME COMMAND...
step() {
    local name=$1 start=$SECONDS outcome=ok
    shift
    printf '\n==== %s\n' "$name"
    "$@" || { outcome=FAILED; failed=1; }
    summary+=("$(printf '%-7s %5d s  %s' "$outcome" $((SECONDS - start)) "$name")")
    [[ $outcome == ok ]]
}

skip() {
    summary+=("$(printf '%-7s %5s    %s' skipped '' "$1")")
}

finish() {
    printf '\n==== summary (%d s)\n' "$SECONDS"
    printf '%s\n' "${summary[@]}"
    if ((failed)); then echo "make test: FAILED"; else echo "make test: all passed"; fi
    exit "$failed"
}

unset MAKEFLAGS MFLAGS MAKELEVEL

step "libraries and examples (make)" make --no-print-directory -j"$jobs" CARGO="$cargo" all || finish
step "Rust tests (cargo test)" "$cargo" test --release --no-fail-fast
if "$cargo" fmt --version >/dev/null 2>&1; then
    step "formatting (cargo fmt --check)" "$cargo" fmt --check -- -l
else
    skip "formatting: rustfmt is not installed"
fi
if "$cargo" clippy --version >/dev/null 2>&1; then
    step "lints (cargo clippy)" "$cargo" clippy --release --all-targets -- -D warnings
else
    skip "lints: clippy is not installed"
fi

step "fuzzing, a short run (scripts/fuzz.sh)" env CARGO="$cargo" BUILD_DIR="$build" scripts/fuzz.sh short

configure() {
    CARGO=$cargo "$cmake" -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DCOLIB_BUILD_TESTS=ON -DCOLIB_BUILD_EXAMPLES=ON \
        -DCOLIB_CARGO_TARGET_DIR="$target"
}
step "configuration (cmake)" configure || finish
# What cannot be built fails its own tests alone.
build_all() {
    local keep_going=(-k)
    if grep -q '^CMAKE_GENERATOR:.*=Ninja' "$build/CMakeCache.txt"; then keep_going=(-k 0); fi
    "$cmake" --build "$build" -j"$jobs" -- "${keep_going[@]}"
}
step "C and C++ tests: build" build_all
# Many tests bound a time, which a busy host may stretch: what failed an expectation is run once more, and the summary names it.
# Crashes and hangs count at once.
ctests() {
    local log=$build/ctest.log again
    ctest --test-dir "$build" --output-on-failure -O "$log" && return
    ! grep -E '\*\*\*(Exception|Timeout|Not Run)|SEGFAULT|Subprocess' "$log" || return
    again=$(sed 's/^[0-9]*://' "$build/Testing/Temporary/LastTestsFailed.log")
    ctest --test-dir "$build" --output-on-failure --rerun-failed || return
    summary+=("$(printf 'again           %s\n' $again)")
}
step "C and C++ tests (ctest)" ctests
step "soak, one minute" make --no-print-directory soak MINUTES=1 BUILD_DIR="$build" CARGO="$cargo"
# A part: `make test-memcheck` runs them all.
core='test_(context|create|exceptions|inner|loop_conditions|mutex|release|reset|resume_yield|specifics|visible_struct)$'
step "a part of the C++ tests under valgrind" env BUILD_DIR="$build" JOBS="$jobs" scripts/watch-tests.sh memcheck "$core"
finish
