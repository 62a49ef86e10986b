# What the tests of the client libraries share. A test is called as
#   bash tests/clients/NAME.sh CASE PROGRAM COLIB_SO
# and ends with: run_case "$@". CASE is static, shared (PROGRAM linked to that library does its work), variants_static, variants_shared
# (PROGRAM, which is built fortified and with large files, alone and under jemalloc and tcmalloc) or preload (COLIB_SO under the
# distribution's own client, which must not notice).
#
# A test starts a server of its own in a temporary folder on a free port, as an unprivileged user if run by root, and
# ends it by its process number whatever happens.

set -Eeuo pipefail
trap 'echo "FAILED: line $LINENO of ${BASH_SOURCE[0]##*/}: status $?" >&2' ERR
export LC_ALL=C
PATH=$PATH:/usr/sbin

scratch=$(mktemp -d /tmp/colib-client.XXXXXX)
started=()

finish() {
    local pid status=$?
    for pid in "${started[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${started[@]}"; do
        for _ in {1..100}; do
            is_gone "$pid" && break
            sleep 0.05
        done
        { kill -KILL "$pid" && wait "$pid"; } 2>/dev/null || true
    done
    if ((status != 0)); then
        tail -n 20 "$scratch"/server*.log 2>/dev/null >&2 || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# needs PACKAGE COMMAND...: fails, and says what to install, if a command is missing.
needs() {
    local package=$1 command
    shift
    for command in "$@"; do
        command -v "$command" >/dev/null ||
            fail "$command is missing: install the package $package (scripts/install-deps.sh test does)"
    done
}

is_gone() {
    ! kill -0 "$1" 2>/dev/null
}

# free_port: a port of 127.0.0.1 that nobody listens on, outside the range that connections take theirs from.
free_port() {
    local port
    while port=$((10000 + RANDOM % 20000)); do
        if ! { : <>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# as_user USER COMMAND...: runs it as this user if we are root, as ourselves otherwise. It replaces the calling process.
as_user() {
    local user=$1
    shift
    if (($(id -u) == 0)); then
        exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"
    fi
    exec "$@"
}

# folder_of USER: hands the temporary folder to the server's user.
folder_of() {
    if (($(id -u) == 0)); then
        chown "$1" "$scratch"
    fi
}

# start_server USER COMMAND...: in the background; sets server_pid. What it prints goes to server.log.
start_server() {
    as_user "$@" </dev/null >>"$scratch/server.log" 2>&1 &
    server_pid=$!
    started+=("$server_pid")
}

# until_true COMMAND...: waits for it to succeed, 30 seconds at most; fails if the server ends meanwhile.
until_true() {
    local end=$((SECONDS + 30))
    until "$@" >/dev/null 2>&1; do
        ! is_gone "$server_pid" || fail "the server ended: $(tail -n 20 "$scratch/server.log")"
        ((SECONDS < end)) || fail "in vain waited for: $*"
        sleep 0.05
    done
}

# listens PORT
listens() {
    { : <>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null
}

# run SECONDS COMMAND...: its output goes to $out and to ours; it must end with status 0 in time.
run() {
    local limit=$1 status=0
    shift
    timeout -k 5 "$limit" "$@" >"$scratch/out" 2>&1 || status=$?
    out=$(<"$scratch/out")
    printf '%s\n' "$out"
    ((status == 0)) || fail "$* ended with status $status (124: it hung)"
}

# expect_line EXTENDED_REGULAR_EXPRESSION: a whole line of what run printed last.
expect_line() {
    grep -Eqx -- "$1" <<<"$out" || fail "no line '$1' in: $out"
}

# under_a_second: the last run's line that ends in "N.NN s" says less than one.
under_a_second() {
    expect_line '.*: 0\.[0-9][0-9] s'
}

# allocator NAME: the file of jemalloc or tcmalloc as the loader knows it.
allocator() {
    local file
    file=$(ldconfig -p | sed -n "s|.*$1[^ ]* .*=> ||p" | head -n 1)
    [[ -n $file ]] || fail "$1 is missing: install libjemalloc2 and libtcmalloc-minimal4 (scripts/install-deps.sh test does)"
    echo "$file"
}

# under_allocators COMMAND...: runs COMMAND with `prefix` set to run a program under each allocator in turn.
under_allocators() {
    local name file
    for name in libjemalloc.so.2 libtcmalloc_minimal.so.4; do
        file=$(allocator "$name")
        echo "-- under $name"
        prefix=(env "LD_PRELOAD=$file")
        "$@"
        prefix=()
    done
}
prefix=()

# same_preloaded COMMAND...: a program that never heard of us gives the same output, errors and status with the
# shared library under it. Standard input comes from $input; what the sed script $differs takes away (dates) may differ.
input=/dev/null
differs=
same_preloaded() {
    local with=0 without=0
    timeout -k 5 30 "$@" <"$input" >"$scratch/without" 2>"$scratch/without.err" || without=$?
    timeout -k 5 30 env "LD_PRELOAD=$colib_so" "$@" <"$input" >"$scratch/with" 2>"$scratch/with.err" || with=$?
    ((with == without)) || fail "$*: status $with under our library, $without without: $(<"$scratch/with.err")"
    sed -i -e "$differs" "$scratch"/{without,with}{,.err}
    cmp "$scratch/without" "$scratch/with" || fail "$*: other output under our library"
    cmp "$scratch/without.err" "$scratch/with.err" || fail "$*: other errors under our library: $(<"$scratch/with.err")"
    echo "same with and without (status $with): $*"
}

# expect_output EXTENDED_REGULAR_EXPRESSION: the last same_preloaded's program printed it, so that two equal failures do
# not pass as equal.
expect_output() {
    grep -Eq -- "$1" "$scratch/with" "$scratch/with.err" || fail "no '$1' in $(cat "$scratch/with" "$scratch/with.err")"
}

# refuses_bad_input PROGRAM: a message, the usage line and status 1.
refuses_bad_input() {
    local status=0
    "$1" >"$scratch/out" 2>&1 || status=$?
    ((status == 1)) || fail "$1 without arguments ended with status $status"
    grep -q '^usage: ' "$scratch/out" || fail "$1 without arguments tells no usage"
}

# run_case CASE PROGRAM COLIB_SO: calls serve (starts the server), then the case.
run_case() {
    local case=$1
    program=$2
    colib_so=$3
    serve
    case $case in
    static | shared)
        refuses_bad_input "$program"
        works
        ;;
    variants | variants_*)
        works # PROGRAM is the fortified one, with large files
        under_allocators works
        ;;
    *)
        declare -F "$case" >/dev/null || fail "no case $case"
        "$case" # preload, or one of the client's own
        ;;
    esac
    echo "passed: $case"
}
