#!/usr/bin/env bash
# As tests/gdb.sh, of a program for aarch64 that qemu runs and shows to gdb: static and shared, live alone (qemu writes
# cores of its own kind). Needs gdb-multiarch.
#
# COLIB_LIBDIR has the libraries for aarch64.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
root=/usr/aarch64-linux-gnu
soname=libcolib.so.0.5
libraries=$(cd "$COLIB_LIBDIR" && pwd)

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# shellcheck source=tests/gdb/read.sh
source "$top/tests/gdb/read.sh"

# look PROGRAM: what gdb says of it at stop_here.
look() {
    local program=$1 qemu status=0 i
    what=$program
    qemu-aarch64 -g "$tmp/$program.socket" -L $root -E "LD_LIBRARY_PATH=$root/lib:$libraries" "./$program" \
        >"$program.out" 2>&1 &
    qemu=$!
    for ((i = 0; i < 100; i++)); do
        [[ -S $program.socket ]] && break
        sleep 0.1
    done
    said=$(timeout 120 gdb-multiarch -nx -batch -iex 'set auto-load safe-path /nowhere' -iex 'set width 0' \
        -iex 'set debuginfod enabled off' -iex "set sysroot $root" -iex "set solib-search-path $libraries:$root/lib" \
        -ex "target remote $tmp/$program.socket" -ex 'set breakpoint pending on' -ex 'break stop_here' -ex continue \
        -ex "source $top/scripts/gdb/colib-gdb.py" "${ask[@]}" -ex continue "./$program" 2>&1 </dev/null) || status=$?
    kill "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
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
