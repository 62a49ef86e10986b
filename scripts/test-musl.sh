#!/usr/bin/env bash
# Builds the static library for musl, the standard library too, and runs a fully static program with it: tests/musl. Called by
# `make test-musl`.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${BUILD_DIR:-build}/musl
mkdir -p "$out"
out=$(cd "$out" && pwd)
jobs=${JOBS:-$(nproc)}
target=x86_64-unknown-linux-musl
library=$out/cargo/$target/release/libcolib.a

# The distribution's toolchain with the sources that it was built from: no package has the standard library for musl.
env -u CARGO_BUILD_TARGET RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind \
    CC_x86_64_unknown_linux_musl=musl-gcc CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc \
    /usr/bin/cargo rustc -j"$jobs" --release --lib --crate-type staticlib --target "$target" --target-dir "$out/cargo" \
    -- -D warnings

# build PROGRAM SOURCE: musl-gcc asks for no table of frames, without which nobody can walk them.
build() {
    musl-gcc -static -std=c11 -O2 -g -Wall -Wextra -Werror -Wl,--eh-frame-hdr -Iinclude -Ic_examples "$2" "$library" -o "$1"
    # Nothing of it is found when it runs.
    if readelf -lW "$1" | grep -q INTERP; then
        echo "musl: $1 is not fully static" >&2
        exit 1
    fi
}

build "$out/program" tests/musl/program.c
printf 'nameserver 127.0.0.1\n' >"$out/resolv.conf"
timeout 120 "$out/program" "$out/resolv.conf"

# The examples in C, by the tests that they have elsewhere: run SCRIPT PROGRAM..., with an empty name for one in C++.
for source in c_examples/example_*.c c_examples/tests/bad_peer.c; do
    name=${source##*/}
    build "$out/${name%.c}" "$source"
done
passed=0
run() {
    local script=c_examples/tests/$1.sh case programs=()
    shift
    for name; do
        programs+=("${name:+$out/$name}")
    done
    for case in $(sed -n 's/^\(test_[a-z0-9_]*\)() {$/\1/p' "$script"); do
        case $case in
        test_specific_gives_* | test_closure_*) continue ;; # C++
        test_connections_beyond_the_descriptor_limit_*) continue ;; # looks for glibc's words for EMFILE
        esac
        timeout 120 bash "$script" "$case" "${programs[@]}" >"$out/example.txt" 2>&1 || {
            echo "musl: $script $case failed:" >&2
            cat "$out/example.txt" >&2
            exit 1
        }
        passed=$((passed + 1))
    done
}
run first example_first
run output example_cond example_copystack '' example_specific_c example_setenv example_thread '' example_inspect
run poll example_poll example_echosvr bad_peer
run resolve example_resolve
run echo example_echosvr example_echocli bad_peer
run http example_httpsvr
echo "musl: all passed, and $passed tests of examples"
