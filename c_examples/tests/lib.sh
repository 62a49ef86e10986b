# What the test scripts of the examples share. A script is called as
#   bash SCRIPT CASE EXECUTABLE...
# and ends with: run_case "$@". A case is a function whose name starts with test_; CMakeLists.txt finds it by that name.

set -Eeuo pipefail
trap 'echo "FAILED: line $LINENO of ${BASH_SOURCE[0]##*/}: status $?" >&2' ERR

scratch=$(mktemp -d)
started=()

finish() {
    local pid
    for pid in "${started[@]}"; do
        { kill -KILL "$pid" && wait "$pid"; } 2>/dev/null || true # wait: no note "Killed" from the shell
    done
    rm -rf "$scratch"
}
trap finish EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

run_case() {
    local name=$1
    shift
    declare -F "$name" >/dev/null || fail "no case $name"
    "$name" "$@"
    echo "passed: $name"
}

# expect WHAT GOT WANTED
expect() {
    [[ $2 == "$3" ]] || fail "$1: got '$2', not '$3'"
}

# expect_match WHAT GOT EXTENDED_REGULAR_EXPRESSION
expect_match() {
    [[ $2 =~ $3 ]] || fail "$1: '$2' does not match '$3'"
}

# start COMMAND...: runs a server, waits for its line "listening on IP:PORT", sets server_pid, port and server_out (a
# descriptor with what else it prints). Its errors go to $scratch/errors.
start() {
    local line
    mkfifo "$scratch/fifo"
    "$@" >"$scratch/fifo" 2>"$scratch/errors" &
    server_pid=$!
    started+=("$server_pid")
    exec {server_out}<"$scratch/fifo"
    rm "$scratch/fifo"
    read -r -t 20 -u "$server_out" line || fail "no line from $1: $(<"$scratch/errors")"
    expect_match "first line of $1" "$line" '^listening on [0-9.]+:[1-9][0-9]*$'
    port=${line##*:}
}

# Ends the server with SIGTERM; it must end with status 0.
stop() {
    local status=0
    kill -TERM "$server_pid"
    wait "$server_pid" || status=$?
    expect "status of the server after SIGTERM" "$status" 0
}

# until_true COMMAND...: waits for it to succeed, 20 seconds at most.
until_true() {
    local end=$((SECONDS + 20))
    until "$@"; do
        ((SECONDS < end)) || fail "in vain waited for: $*"
        sleep 0.02
    done
}

is_gone() {
    ! kill -0 "$1" 2>/dev/null
}

children_of() {
    cat "/proc/$1/task/$1/children"
}

# The processor time a process has used, in ticks of 10 ms.
ticks_of() {
    local stat
    stat=$(<"/proc/$1/stat")
    set -- ${stat##*) }
    echo $((${12} + ${13}))
}

# How often a process has gone to sleep.
sleeps_of() {
    sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$1/status"
}

# expect_idle PID: in half a second the process neither spins (it uses less than a tenth of the time it could) nor wakes
# up on a tick.
expect_idle() {
    local ticks sleeps
    ticks=$(ticks_of "$1")
    sleeps=$(sleeps_of "$1")
    sleep 0.5
    ticks=$(($(ticks_of "$1") - ticks))
    sleeps=$(($(sleeps_of "$1") - sleeps))
    ((ticks < 5)) || fail "process $1 used $ticks ticks in half a second: it spins"
    ((sleeps < 50)) || fail "process $1 woke up $sleeps times in half a second"
}
