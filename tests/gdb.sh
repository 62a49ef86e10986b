#!/usr/bin/env bash
# Runs gdb with the library's script on tests/gdb/debuggee.cpp: static and shared, stripped or not, on the live
# process and on its core, and reads what it says. Exits with 77 where there is no gdb.
#
# COLIB_LIBDIR (default: lib/ and solib/ of this tree) has the libraries; CXX names the compiler.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cxx=${CXX:-g++}
script=$top/scripts/gdb/colib-gdb.py
soname=libcolib.so.0.5
static_library=${COLIB_LIBDIR:-$top/lib}/libcolib.a
shared_library=${COLIB_LIBDIR:-$top/solib}/$soname

command -v gdb >/dev/null || { echo "gdb is not installed: skipped"; exit 77; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# shellcheck source=tests/gdb/read.sh
source "$top/tests/gdb/read.sh"

# look WHAT GDB_ARGUMENT...: what gdb says, without a user's own settings. (It ends with 1 if its last command failed.)
look() {
    local status=0
    what=$1
    shift
    said=$(timeout 60 gdb -nx -batch -iex "set auto-load safe-path $tmp:/usr" -iex 'set width 0' \
        -iex 'set debuginfod enabled off' "$@" 2>&1 </dev/null) || status=$?
    ((status <= 1)) || fail "$what: gdb ended with status $status: $said"
}

# leave_core WORD: the program ends with a core of the kernel's.
leave_core() {
    bash -c "ulimit -c unlimited; ./static $1; exit 0" >/dev/null 2>&1
    [[ -f core ]] || fail "./static $1 left no core"
}

at_stop=(-ex 'set breakpoint pending on' -ex 'break stop_here' -ex run)

live_and_core() { # NAME NAMES PROGRAM GDB_ARGUMENT...
    local name=$1 names=$2 program=$3
    shift 3
    if [[ $names == stripped ]]; then
        # No name to stop at: the signal of abort.
        look "$name, live" "$@" -ex run "${ask[@]}" -ex "coroutine gcore $tmp/$name.core" --args "$program" abort
    else
        look "$name, live" "$@" "${at_stop[@]}" "${ask[@]}" -ex "coroutine gcore $tmp/$name.core" -ex continue "$program"
        says '^all went on$'
    fi
    table_and_frames "$names"
    look "$name, core of gdb" "$@" "${ask[@]}" "$program" "$tmp/$name.core"
    says 'shown on a copy of the core'
    table_and_frames "$names"
    printf 'ok  %s\n' "$name"
}

build() { # PROGRAM FLAG...
    local program=$1
    shift
    "$cxx" -g -O1 -Wall -Wextra -Werror -I"$top/include" "$top/tests/gdb/debuggee.cpp" -o "$program" "$@"
}
static_links=("$static_library" -lpthread -ldl -lrt -lutil -lm)
build static "${static_links[@]}" &
build small -no-pie -Wl,--gc-sections "${static_links[@]}" -s &
mkdir so stripped_so
cp "$shared_library" so
cp "$script" "so/$soname-gdb.py"
strip -o "stripped_so/$soname" "$shared_library"
build shared "so/$soname" -Wl,-rpath,"$tmp/so" &
build shared_stripped "so/$soname" -Wl,-rpath,"$tmp/stripped_so" &
wait_for_all() {
    local job
    for job in $(jobs -p); do wait "$job" || fail "$1"; done
}
wait_for_all "the program cannot be built"

# The script comes out of the program's file; from beside the library; by hand.
live_and_core static named ./static &
live_and_core shared named ./shared &
wait_for_all "see above"
live_and_core static-stripped stripped ./small -ex "source $script" &
live_and_core shared-stripped program ./shared_stripped -ex "source $script" &
wait_for_all "see above"

# The kernel's own core, where it leaves one here.
if [[ $(</proc/sys/kernel/core_pattern) == core && $(</proc/sys/kernel/core_uses_pid) == 0 ]] &&
    (ulimit -c unlimited) 2>/dev/null; then
    leave_core abort
    look "static, core of the kernel" "${ask[@]}" -ex 'bt' ./static core
    table_and_frames named
    says '^#[0-9]+ .* __GI_abort ' '^#[0-9]+ .* stop_here ' '^#[0-9]+ .* runs '
    # Half of it: errors in words, no trace of the script's own.
    truncate -s $(($(stat -c %s core) / 4)) core
    look "a truncated core" -ex "source $script" -ex 'info coroutines' ./static core
    says '^colib: (cannot read|no colib)'
    never_says 'Traceback|Python Exception'
    rm core
    # An exception that nobody catches ends in std::terminate, with all frames there.
    leave_core throw
    look "an exception nobody catches" -ex bt ./static core
    says '^#[0-9]+ .* __cxa_throw ' '^#[0-9]+ .* stop_here ' '^#[0-9]+ .* in runs '
    [[ $(tail -n 1 <<<"$said") =~ ^#.*first_frame ]] || fail "$what: the backtrace does not end there:"$'\n'"$said"
    never_says 'corrupt|identical|inner to|Backtrace stopped'
    rm core
    echo "ok  cores of the kernel"
else
    echo "--  core_pattern or the limit sends cores elsewhere: the kernel's own are not looked at"
fi

# name VARIABLE ROUTINE: the command that gives a coroutine's address a name.
name() {
    printf 'python gdb.set_convenience_variable("%s", [c.address for c in ColibWorld().coroutines if c.name() == "%s(void*)"][0])' "$@"
}
look "commands" "${at_stop[@]}" -ex 'info coroutines -suspended -thread 1' -ex 'coroutine main bt' \
    -ex "$(name r resumes_another)" -ex 'coroutine $r' -ex "$(name c yield_simply)" -ex 'coroutine $c bt 2' \
    -ex 'coroutine $c frame 2 info locals' -ex 'coroutine $c select' -ex 'up' -ex 'coroutine off' -ex 'bt 1' \
    -ex "$(name x copied_out)" -ex 'coroutine $x frame 99' -ex 'coroutine $x frame 4 print nonsense' -ex 'coroutine $x select' \
    -ex continue ./static
says '^4 of 13 coroutines: 4 suspended$' '^#0 .* in start \(' '^#1 .* in main ' '^  routine  resumes_another\(void\*\) at .*cpp:' \
    '^  resumed  by the main coroutine$' '^local = 2000$' '^#2 .* yield_deep \(depth=(depth@entry=)?1\)' \
    '^#0  +(0x[0-9a-f]+ in )?stop_here ' '^colib: it has no such frame' '^No symbol "nonsense"' '^colib: its stack is copied out: use' \
    '^all went on$'
never_says 'Traceback|Python Exception|^#3 '

look "errors" "${at_stop[@]}" -ex 'coroutine 14 bt' -ex 'coroutine 0x123450' -ex 'coroutine nobody bt' -ex 'coroutine' \
    -ex 'info coroutines -asleep' -ex 'coroutine 1 sing' -ex 'coroutine 1 frame 9' \
    -ex 'set var *(int *) ((char *) &colib_debug_layout + 16) = 99' -ex 'info coroutines' ./static
says "^colib: no coroutine '14': there are 13" "^colib: no coroutine '0x123450'" "^colib: 'nobody' is no number" \
    '^colib: which coroutine\?' "^colib: '-asleep' is none of" "^colib: 'sing' is none of" '^colib: it has no such frame' \
    '^colib: .* layout version 99 '
never_says 'Traceback|Python Exception'
look "nothing to look at" -ex "source $script" -ex 'info coroutines' -ex starti -ex 'info coroutines' -ex kill "$(command -v sleep)"
says '^colib: no process' '^colib: no colib in this process'
never_says 'Traceback|Python Exception'
echo "ok  commands and errors"

# perf's call chains end at the first frame too, by frame pointers and by unwinding.
if ! command -v perf >/dev/null || ! perf record -q -e cpu-clock -o probe.data true >/dev/null 2>&1; then
    echo "--  perf is not there or may not record here: its call chains are not looked at"
    exit 0
fi
"$cxx" -g -O2 -fno-omit-frame-pointer -fno-optimize-sibling-calls -Wall -Wextra -Werror -I"$top/include" "$top/tests/gdb/spin.cpp" -o spin "${static_links[@]}"
for mode in fp dwarf; do
    perf record -q -e cpu-clock -F 499 --call-graph $mode -o perf.data ./spin >/dev/null 2>&1 || fail "perf record ($mode) failed"
    what="perf, $mode" said=$(perf script -i perf.data -F ip,sym 2>/dev/null)
    # A chain for each sample, innermost first, with an empty line behind it: of those in serve, what comes last.
    ends=$(awk 'NF {last = $2; if ($2 ~ /^serve/) inside = 1; next} inside {print last} {inside = 0}' <<<"$said" | sort | uniq -c)
    says ' multiply' ' serve'
    [[ $(wc -l <<<"$ends") == 1 && $ends == *first_frame* ]] || fail "$what: the call chains end in:"$'\n'"$ends"
done
echo "ok  perf"
