# example_poll. Arguments: CASE POLL ECHOSVR BAD_PEER
source "${BASH_SOURCE%/*}/lib.sh"

test_it_tells_connected_from_refused() {
    local refused output number
    start "$3" refuse
    refused=$port
    start "$2" 127.0.0.1 0 2 1
    output=$("$1" -t 10000 "127.0.0.1:$port" "127.0.0.1:$refused")
    for number in 1 2; do
        expect "lines of coroutine $number" "$(sort <<<"$output" | grep "^coroutine $number: ")" \
            "$(sort <<<"coroutine $number: 127.0.0.1:$port connected
coroutine $number: 127.0.0.1:$refused failed: Connection refused
coroutine $number: 1 connected, 1 failed, 0 timed out")"
    done
    stop
}

test_it_gives_up_on_an_endpoint_that_stays_silent() {
    local silent output
    start "$3" silent
    silent=$port
    start "$2" 127.0.0.1 0 2 1
    output=$("$1" -t 100 "127.0.0.1:$silent" "127.0.0.1:$port")
    expect_match "output" "$output" "coroutine 1: 127.0.0.1:$silent timed out"
    expect_match "output" "$output" "coroutine 2: 127.0.0.1:$silent timed out"
    expect_match "output" "$output" "coroutine 1: 1 connected, 0 failed, 1 timed out"
    expect_match "output" "$output" "coroutine 2: 1 connected, 0 failed, 1 timed out"
    stop
}

test_the_coroutines_wait_at_the_same_time() {
    local output begin end
    start "$3" silent
    begin=$(date +%s%N)
    output=$("$1" -t 600 "127.0.0.1:$port")
    end=$(date +%s%N)
    expect "time-outs" "$(grep -c '0 connected, 0 failed, 1 timed out' <<<"$output")" 2
    ((end - begin >= 600000000)) || fail "waited less than it was told: $((end - begin)) ns"
    ((end - begin < 1200000000)) || fail "one waited after the other: $((end - begin)) ns"
}

run_case "$@"
