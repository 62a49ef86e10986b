#!/usr/bin/env bash
# gdb walks up after each instruction of resumes, yields, ends and waits, and looks who counts as running, for a processor that
# cannot step itself (cpp_tests/test_backtrace_stepped.cpp and test_release_stepped.cpp do it on x86-64).
#
#   tests/gdb_stepped.sh aarch64|riscv64    COLIB_LIBDIR has the libraries for it
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
processor=$1
libraries=$(cd "$COLIB_LIBDIR" && pwd)

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# shellcheck source=tests/gdb/emulated.sh
source "$top/tests/gdb/emulated.sh"

"$processor-linux-gnu-g++" -g -O1 -Wall -Wextra -Werror -I"$top/include" "$top/tests/gdb/stepped.cpp" -o stepped "$libraries/libcolib.a" \
    -lpthread -ldl -lrt -lutil -lm -Wl,-z,now
emulated "$processor" stepped "$libraries" -x "$top/tests/gdb/stepped.py" -ex kill
summary=$(grep '^stepped: ' <<<"$said") || { echo "gdb_stepped: $processor: gdb did not get to the end: $said"; exit 1; }
read -r steps on_thread on_coroutines wrong <<<"${summary//[^0-9 ]/}"
if ((wrong != 0 || steps < 500 || steps >= 20000 || on_thread < 200 || on_coroutines < 200)); then
    printf 'gdb_stepped: %s: %s\n' "$processor" "$said"
    exit 1
fi
echo "$processor: $summary"
