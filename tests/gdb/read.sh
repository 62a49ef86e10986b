# What gdb must say of tests/gdb/debuggee.cpp. Sourced by tests/gdb.sh and tests/gdb_aarch64.sh, which set `what` (what is looked
# at), `said` (gdb's words), and `soname`.

ask=(-ex 'info coroutines' -ex 'coroutine apply all bt full')

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

what= said=

# says PATTERN...: each matches a line.
says() {
    local pattern
    for pattern in "$@"; do
        grep -Eq -- "$pattern" <<<"$said" || fail "$what: no line matches '$pattern' in:"$'\n'"$said"
    done
}

never_says() {
    if grep -Ei -- "$1" <<<"$said" >&2; then fail "$what: it must not say '$1' in:"$'\n'"$said"; fi
}

# of ROUTINE PATTERN...: successive lines in the frames of the coroutine with that routine (or state) match, #0 on,
# as `coroutine apply all bt` shows them, and the last one is the first frame's.
of() {
    local routine=$1 frames all=$said pattern
    shift
    frames=$(awk -v name="$routine" 'NF == 0 {on = 0} /^Coroutine /{on = index($0, name)} on' <<<"$all")
    said=$frames
    for pattern in "$@"; do
        says "$pattern"
    done
    [[ $(grep -E '^#' <<<"$frames" | tail -n 1) == *"$last_frame"* ]] ||
        fail "$what: the frames of $routine do not end with the coroutine's first:"$'\n'"$frames"
    said=$all
}

# table_and_frames NAMES: what `info coroutines` and `coroutine apply all bt` say, with all names, with those of the
# program (not the library), or stripped of them.
table_and_frames() {
    local id='^\*? +[0-9]+ +0x[0-9a-f]+ +'
    never_says 'corrupt|identical to this frame|inner to this|Backtrace stopped|Traceback|Python Exception|Error occurred'
    says '^13 of 13 coroutines: 1 new, 4 suspended, 5 waiting, 1 running, 1 resuming, 1 ended$' \
        "${id}[12] +waiting +.* fd [0-9]+ \(in\), for [0-9.]+ m?s$" \
        "${id}[12] +waiting +.* time, for [0-9.]+ m?s, (600|59[0-9])\.[0-9] s left$" \
        "${id}[12] +waiting +.* fd [0-9]+ \(in\), fd [0-9]+ \(in out\), for [0-9.]+ m?s, (900|89[0-9])\.[0-9] s left$" \
        "${id}[12] +waiting +.* condition 0x[0-9a-f]+, for [0-9.]+ m?s$" \
        "${id}1 +suspended +.* of 64K, copied out$" "${id}1 +suspended +.* of 64K, copy stack$"
    [[ $(grep -Ec "${id}2 +waiting" <<<"$said") == 1 ]] || fail "$what: one coroutine waits in thread 2:"$'\n'"$said"
    if [[ $1 == stripped ]]; then
        [[ $(grep -Ec '^#4 .* in ' <<<"$said") -ge 2 ]] || fail "$what: no frames of the copied-out ones:"$'\n'"$said"
        return
    fi
    last_frame=first_frame
    if [[ $1 == program ]]; then last_frame=$soname; fi
    says "${id}1 +waiting +read_request\(void\*\) .* of 128K .* fd" "${id}2 +waiting +sleep_long\(void\*\)" \
        "${id}1 +running +runs\(void\*\)" "${id}1 +resuming +resumes_another\(void\*\)" "${id}1 +new +never_runs"
    of read_request '^#[0-9]+ .*wait_for_events \(count=(count@entry=)?1, timeout_ms=(timeout_ms@entry=)?-1\) at .*debuggee\.cpp:[0-9]+$' ' in read_request '
    of read_either '^#[0-9]+ .*wait_for_events \(count=(count@entry=)?2, timeout_ms=(timeout_ms@entry=)?900000\) at ' ' in read_either '
    of wait_for_signal ' in wait_for_signal .* at .*debuggee\.cpp:[0-9]+$'
    of yield_simply '^#0 .* yield_deep \(depth=(depth@entry=)?0\)' '^#2 .*depth=(depth@entry=)?2\)' '^#3 .* in yield_simply '
    of resumes_another '^#0 .* in resumes_another '
    of 'runs(void*)' ' stop_here \(level=' ' in runs '
    of 'copied_out' '^#0 .* yield_deep \(depth=(depth@entry=)?0\)' '^#3 .*depth=(depth@entry=)?3\)' '^#4 .* in copied_out '
    [[ $(grep -Ec 'in copied_out \(arg=0x[12]\)' <<<"$said") == 2 ]] || fail "$what: both copied-out ones:"$'\n'"$said"
    says 'secret = 4712$' 'secret = 4713$'
    of occupies '^#1 .*depth=(depth@entry=)?1\)' '^#2 .* in occupies '
}
