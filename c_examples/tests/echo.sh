# example_echosvr and example_echocli. Arguments: CASE ECHOSVR ECHOCLI BAD_PEER
source "${BASH_SOURCE%/*}/lib.sh"

# echo_line CONNECTION TEXT: sends a line and expects it back
echo_line() {
    local got
    echo "$2" >&"$1"
    read -r -t 20 -u "$1" got || fail "no echo of '$2'"
    expect "echo" "$got" "$2"
}

test_the_client_gets_every_byte_back() {
    local output
    start "$1" 127.0.0.1 0 10 2
    output=$("$2" 127.0.0.1 "$port" 5 2 1) || fail "status $?: $output"
    expect_match "output" "$output" $'^second 1: succeeded [1-9][0-9]*, failed 0\ntotal: succeeded [1-9][0-9]*, failed 0, wrong 0$'
    stop
}

test_a_thousand_connections_are_served_at_once() {
    local output
    start "$1" 127.0.0.1 0 500 2
    output=$("$2" 127.0.0.1 "$port" 500 2 2) || fail "status $?: $output"
    expect_match "output" "$output" $'\ntotal: succeeded [1-9][0-9]{3,}, failed [0-9]*, wrong 0$'
    stop
}

test_the_client_notices_wrong_bytes() {
    local output status=0
    start "$3" corrupt
    output=$("$2" 127.0.0.1 "$port" 2 1 1) || status=$?
    expect "status" "$status" 1
    expect_match "output" "$output" 'wrong [1-9][0-9]*$'
}

test_the_client_counts_failures_without_a_server() {
    local output status=0
    start "$3" refuse
    output=$("$2" 127.0.0.1 "$port" 2 1 1) || status=$?
    expect "status" "$status" 1
    expect_match "output" "$output" $'^second 1: succeeded 0, failed [1-9][0-9]*\ntotal: succeeded 0, failed [1-9][0-9]{0,2}, wrong 0$'
}

test_sigint_ends_the_client_with_a_total() {
    local output=$scratch/output status=0 pid
    start "$1" 127.0.0.1 0 2 1
    # a background job of a script starts with SIGINT ignored: let env give it back
    env --default-signal=INT "$2" 127.0.0.1 "$port" 2 1 >"$output" &
    pid=$!
    started+=("$pid")
    until_true grep -q '^second 1:' "$output"
    kill -INT "$pid"
    wait "$pid" || status=$?
    expect "status" "$status" 0
    expect_match "last line" "$(tail -n 1 "$output")" '^total: succeeded [1-9]'
    stop
}

test_a_peer_that_reads_late_gets_everything() {
    local connection size=30000000
    start "$1" 127.0.0.1 0 1 1
    head -c "$size" /dev/urandom >"$scratch/sent"
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    cat "$scratch/sent" >&"$connection" &
    sleep 0.3 # meanwhile all buffers fill up, and the server has to wait before it can write on
    timeout 20 head -c "$size" <&"$connection" | cmp - "$scratch/sent" || fail "not what was sent"
    stop
}

test_a_connection_beyond_the_tasks_waits_without_spinning() {
    local first second got children
    start "$1" 127.0.0.1 0 1 1
    children=($(children_of "$server_pid"))
    exec {first}<>"/dev/tcp/127.0.0.1/$port"
    echo_line "$first" one
    exec {second}<>"/dev/tcp/127.0.0.1/$port"
    echo two >&"$second"
    expect_idle "${children[0]}"
    if read -r -t 0.1 -u "$second" got; then
        fail "the one task served a second connection: '$got'"
    fi
    echo_line "$first" three
    exec {first}>&-
    read -r -t 20 -u "$second" got || fail "the second connection is not served"
    expect "echo" "$got" two
    stop
}

test_an_idle_server_uses_no_time() {
    local connection children
    start "$1" 127.0.0.1 0 2 1
    children=($(children_of "$server_pid"))
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    echo_line "$connection" one
    expect_idle "${children[0]}"
    stop
}

test_sigterm_ends_all_processes() {
    local children pid
    start "$1" 127.0.0.1 0 1 3
    children=($(children_of "$server_pid"))
    expect "child processes" "${#children[@]}" 3
    stop
    for pid in "${children[@]}"; do
        until_true is_gone "$pid"
    done
}

test_the_server_ends_when_a_worker_is_killed() {
    local children pid status=0
    start "$1" 127.0.0.1 0 1 2
    children=($(children_of "$server_pid"))
    kill -KILL "${children[0]}"
    wait "$server_pid" || status=$?
    expect "status" "$status" 1
    expect_match "errors" "$(<"$scratch/errors")" 'worker 0 ended with status 0x9'
    until_true is_gone "${children[1]}"
}

test_with_d_it_serves_in_the_background() {
    local line connection status=0
    start "$1" 127.0.0.1 0 1 1 -d
    read -r -t 20 -u "$server_out" line || fail "no second line"
    expect_match "second line" "$line" '^running in the background as process [0-9]+$'
    started+=("${line##* }")
    wait "$server_pid" || status=$?
    expect "status of the first process" "$status" 0
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    echo_line "$connection" hello
    kill -TERM "${line##* }"
    until_true is_gone "${line##* }"
    until_true connection_is_closed "$connection"
}

connection_is_closed() {
    local got
    read -r -t 1 -u "$1" got && fail "unexpected '$got'"
    (($? == 1))
}

run_case "$@"
