# example_first, the program that README.md shows. Arguments: CASE FIRST
source "${BASH_SOURCE%/*}/lib.sh"

test_the_smallest_server_serves_two_clients_at_once() {
    local tries got
    for ((tries = 0; tries < 20; tries++)); do
        start_or_not "$1" $((20000 + RANDOM % 10000)) && break
    done
    exec 5<>"/dev/tcp/127.0.0.1/$port" 6<>"/dev/tcp/127.0.0.1/$port"
    echo "one" >&5 && echo "two" >&6
    read -r -t 20 -u 6 got && expect "second client's echo" "$got" two
    read -r -t 20 -u 5 got && expect "first client's echo" "$got" one
    exec 5<&- 6<&-
    kill -TERM "$server_pid"
}

# start_or_not COMMAND PORT: fails if somebody else has the port
start_or_not() {
    "$@" >"$scratch/out" 2>"$scratch/errors" &
    server_pid=$!
    started+=("$server_pid")
    until_true eval '[[ -s $scratch/out ]] || is_gone $server_pid'
    expect_or_not "$(<"$scratch/out")" "listening on 127.0.0.1:$2" && port=$2
}

expect_or_not() {
    [[ $1 == "$2" ]]
}

test_the_smallest_server_refuses_bad_arguments() {
    local bad status
    for bad in '' x 0 65536; do
        status=0
        "$1" $bad >"$scratch/out" 2>"$scratch/errors" || status=$?
        expect "status for '$bad'" "$status" 1
        expect "message for '$bad'" "$(<"$scratch/errors")" "usage: $1 PORT"
    done
}

run_case "$@"
