#!/usr/bin/env bash
# As tests/gdb.sh, of a program for aarch64 that qemu runs and shows to gdb: static and shared, live alone (qemu writes
# cores of its own kind).
#
# COLIB_LIBDIR has the libraries for aarch64.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
soname=libcolib.so.0.5
libraries=$(cd "$COLIB_LIBDIR" && pwd)

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# shellcheck source=tests/gdb/read.sh
source "$top/tests/gdb/read.sh"

# shellcheck source=tests/gdb/emulated.sh
source "$top/tests/gdb/emulated.sh"

# look PROGRAM: what gdb says of it at stop_here.
look() {
    local program=$1 status
    what=$program
    emulated aarch64 "$program" "$libraries" -ex 'set breakpoint pending on' -ex 'break stop_here' -ex continue \
        -ex "source $top/scripts/gdb/colib-gdb.py" "${ask[@]}" -ex continue
    ((status <= 1)) || fail "$what: gdb ended with status $status: $said"
    table_and_frames named
    grep -q '^all went on$' "$program.out" || fail "$what: the program did not go on: $(<"$program.out")"
    echo "ok  $program"
}

compile=(aarch64-linux-gnu-g++ -g -O1 -Wall -Wextra -Werror -I"$top/include" "$top/tests/gdb/debuggee.cpp")
"${compile[@]}" -o static "$libraries/libcolib.a" -lpthread -ldl -lrt -lutil -lm
"${compile[@]}" -o shared "$libraries/$soname"
look static
look shared
