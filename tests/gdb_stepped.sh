#!/usr/bin/env bash
# gdb walks up after each instruction of resumes, yields and ends, for a processor that cannot step itself
# (cpp_tests/test_backtrace_stepped.cpp does it on x86-64). Needs gdb-multiarch.
#
#   tests/gdb_stepped.sh aarch64|riscv64    COLIB_LIBDIR has the libraries for it
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
processor=$1
root=/usr/$processor-linux-gnu
libraries=$(cd "$COLIB_LIBDIR" && pwd)

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

"$processor-linux-gnu-g++" -g -O1 -Wall -Wextra -Werror -I"$top/include" "$top/tests/gdb/stepped.cpp" -o stepped "$libraries/libcolib.a" \
    -lpthread -ldl -lrt -lutil -lm -Wl,-z,now
"qemu-$processor" -g "$tmp/socket" -L "$root" -E "LD_LIBRARY_PATH=$root/lib" ./stepped &
qemu=$!
for ((i = 0; i < 100; i++)); do
    [[ -S socket ]] && break
    sleep 0.1
done
said=$(timeout 300 gdb-multiarch -nx -batch -iex 'set auto-load safe-path /nowhere' -iex 'set width 0' \
    -iex 'set debuginfod enabled off' -iex "set sysroot $root" -iex "set solib-search-path $root/lib" \
    -ex "target remote $tmp/socket" -x "$top/tests/gdb/stepped.py" -ex kill ./stepped 2>&1 </dev/null) || true
kill "$qemu" 2>/dev/null || true
wait "$qemu" 2>/dev/null || true
summary=$(grep '^stepped: ' <<<"$said") || { echo "gdb_stepped: $processor: gdb did not get to the end: $said"; exit 1; }
read -r _ steps _ on_thread _ <<<"$summary"
if [[ $summary != *' 0 wrong' ]] || ((steps < 500 || steps >= 20000 || on_thread < 200)); then
    printf 'gdb_stepped: %s: %s\n' "$processor" "$said"
    exit 1
fi
echo "$processor: $summary"
