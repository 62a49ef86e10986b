# example_httpsvr. Arguments: CASE HTTPSVR
source "${BASH_SOURCE%/*}/lib.sh"

# ask TEXT: sends it (printf escapes) on a connection of its own and prints all that comes until the server closes.
ask() {
    local connection
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    printf "$1" >&"$connection"
    timeout 20 cat <&"$connection" | tr -d '\r'
    exec {connection}>&-
}

# expect_status TEXT STATUS: what the server answers to TEXT; it closes afterwards.
expect_status() {
    local got
    got=$(ask "$1")
    expect "status line" "${got%%$'\n'*}" "HTTP/1.1 $2"
}

# without_date: drops the one field that changes
without_date() {
    grep -v '^Date: '
}

# read_answer CONNECTION: one answer with a body of one line, from a connection that stays open
read_answer() {
    local line
    for _ in 1 2 3 4 5 6 7 8 9; do
        read -r -t 20 line <&"$1" || fail "no answer"
        line=${line%$'\r'}
        echo "$line"
        [[ -n $line ]] || break
    done
    read -r -t 20 line <&"$1" || fail "no body"
    echo "$line"
}

stats() {
    ask 'GET /stats HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' | sed -n "s/^$1 \([0-9]*\).*/\1/p"
}

connections_are() {
    [[ $(stats connections) == "$1" ]]
}

test_get_answers_hello() {
    start "$1" 127.0.0.1 0
    expect "answer" "$(ask 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' | without_date)" \
        $'HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 13\nConnection: close\n\nHello, world'
    stop
}

test_answers_carry_the_date() {
    start "$1" 127.0.0.1 0
    expect_match "answer" "$(ask 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')" \
        'Date: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3][0-9] [A-Z][a-z][a-z] 20[0-9][0-9] [0-9:]{8} GMT'
    stop
}

test_head_leaves_out_the_body() {
    start "$1" 127.0.0.1 0
    expect "answer" "$(ask 'HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' | without_date)" \
        $'HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 13\nConnection: close'
    stop
}

test_pipelined_requests_are_answered_in_order() {
    local text='' wanted='' got
    start "$1" 127.0.0.1 0
    for _ in {1..50}; do
        text+='GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n'
        wanted+=$'HTTP/1.1 200 OK\nHello, world\nHTTP/1.1 404 Not Found\n404 Not Found\n'
    done
    text+='GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /after-close HTTP/1.1\r\nHost: a\r\n\r\n'
    wanted+=$'HTTP/1.1 200 OK\nHello, world'
    got=$(ask "$text" | grep -E '^(HTTP/1.1|Hello|404)')
    expect "status lines and bodies" "$got" "$wanted"
    stop
}

test_a_request_may_come_in_pieces() {
    local connection piece
    start "$1" 127.0.0.1 0
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    for piece in '\r\nG' 'ET / HT' 'TP/1.1\r' '\nHost:' ' a\r\nX: y\r\n' '\r' '\n'; do
        printf "$piece" >&"$connection"
        sleep 0.02
    done
    expect_match "answer" "$(read_answer "$connection")" '^HTTP/1.1 200 OK.*Hello, world$'
    stop
}

test_a_connection_serves_request_after_request() {
    local connection
    start "$1" 127.0.0.1 0
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    for _ in 1 2 3; do
        printf 'GET /?query HTTP/1.1\r\nHost: a\r\n\r\n' >&"$connection"
        expect_match "answer" "$(read_answer "$connection")" '^HTTP/1.1 200 OK.*Hello, world$'
    done
    stop
}

test_a_head_larger_than_the_buffer_gets_431() {
    local filler
    filler=$(printf '%020000d' 0)
    start "$1" 127.0.0.1 0
    expect_status "GET / HTTP/1.1\r\nHost: a\r\nX: $filler\r\n\r\n" '431 Request Header Fields Too Large'
    stop
}

test_a_refused_peer_may_finish_sending() {
    local filler
    filler=$(printf '%0500000d' 0)
    start "$1" 127.0.0.1 0
    expect_status "GET / HTTP/1.1\r\nHost: a\r\nX: $filler\r\n\r\n" '431 Request Header Fields Too Large'
    stop
}

test_the_largest_head_that_fits_is_served() {
    local head='GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: '
    local length filler
    length=$(printf "$head" | wc -c)
    filler=$(printf "%0$((8192 - length - 4))d" 0)
    start "$1" 127.0.0.1 0
    expect_status "$head$filler\r\n\r\n" '200 OK'
    expect_status "$head${filler}0\r\n\r\n" '431 Request Header Fields Too Large'
    stop
}

test_a_bad_request_gets_400() {
    local text
    start "$1" 127.0.0.1 0
    for text in 'nonsense' 'GET /' ' GET / HTTP/1.1' 'GET  / HTTP/1.1' 'GET / HTTP/1.1x' 'GET / http/1.1' 'GET nowhere HTTP/1.1' \
        'GET / HTTP/1.1\r\nNo colon here' 'GET / HTTP/1.1\r\nName : value' 'GET / HTTP/1.1\r\n: value' \
        'GET / HTTP/1.1\r\n folded: x' 'GET / HTTP/1.1\r\nHost: b' 'GET / HTTP/1.1\r\nX: a\0b'; do
        expect_status "$text\r\nHost: a\r\n\r\n" '400 Bad Request'
    done
    stop
}

test_http_1_1_without_host_gets_400() {
    start "$1" 127.0.0.1 0
    expect_status 'GET / HTTP/1.1\r\n\r\n' '400 Bad Request'
    stop
}

test_another_version_gets_505() {
    start "$1" 127.0.0.1 0
    expect_status 'GET / HTTP/2.0\r\nHost: a\r\n\r\n' '505 HTTP Version Not Supported'
    stop
}

test_another_method_gets_405_and_the_allowed_ones() {
    local got
    start "$1" 127.0.0.1 0
    got=$(ask 'DELETE / HTTP/1.1\r\nHost: a\r\n\r\n')
    expect_match "answer" "$got" '^HTTP/1.1 405 Method Not Allowed.*Allow: GET, HEAD'
    stop
}

test_a_body_gets_413() {
    start "$1" 127.0.0.1 0
    expect_status 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello' '413 Content Too Large'
    expect_status 'GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n' '413 Content Too Large'
    stop
}

test_a_full_address_is_a_path_too() {
    local path
    start "$1" 127.0.0.1 0
    for path in 'http://a/' 'http://a' '/'; do
        expect_status "GET $path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" '200 OK'
    done
    expect_status "GET http://a/nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" '404 Not Found'
    stop
}

test_http_1_0_closes_by_default() {
    start "$1" 127.0.0.1 0
    expect_match "answer" "$(ask 'GET / HTTP/1.0\r\n\r\n')" '200 OK.*Connection: close.*Hello, world'
    stop
}

test_http_1_0_keeps_alive_when_asked() {
    local connection
    start "$1" 127.0.0.1 0
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    for _ in 1 2; do
        printf 'GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n' >&"$connection"
        expect_match "answer" "$(read_answer "$connection")" 'Connection: keep-alive.*Hello, world'
    done
    stop
}

test_connection_close_is_found_in_a_list() {
    start "$1" 127.0.0.1 0
    expect_status 'GET / HTTP/1.1\r\nHost: a\r\nCONNECTION:  foo,CLOSE\t\r\n\r\n' '200 OK'
    stop
}

test_a_silent_connection_is_closed_after_the_idle_time() {
    local begin=$SECONDS
    start "$1" 127.0.0.1 0 1 1
    expect "answer to nothing" "$(ask '')" ''
    ((SECONDS - begin <= 10)) || fail "closed after $((SECONDS - begin)) seconds"
    stop
}

test_an_unfinished_request_gets_408_after_the_idle_time() {
    start "$1" 127.0.0.1 0 1 1
    expect_status 'GET / HTTP/1.1\r\nHos' '408 Request Timeout'
    stop
}

test_stats_count_open_connections() {
    local connection connections=()
    start "$1" 127.0.0.1 0
    for _ in 1 2 3 4 5; do
        exec {connection}<>"/dev/tcp/127.0.0.1/$port"
        connections+=("$connection")
    done
    until_true connections_are 6
    expect "coroutines" "$(stats coroutines)" 8
    for connection in "${connections[@]}"; do
        exec {connection}>&-
    done
    until_true connections_are 1
    (($(stats memory) > 0)) || fail "no memory in /stats"
    stop
}

test_ended_connections_leave_no_memory_behind() {
    local before after
    start "$1" 127.0.0.1 0
    for _ in {1..20}; do stats memory >/dev/null; done
    before=$(stats memory)
    for _ in {1..200}; do stats memory >/dev/null; done
    after=$(stats memory)
    ((after - before < 1000)) || fail "memory grew from $before to $after kB"
    stop
}

test_connections_beyond_the_descriptor_limit_wait_quietly() {
    local connection connections=()
    start bash -c 'ulimit -n 20; exec "$0" "$@"' "$1" 127.0.0.1 0
    for _ in {1..30}; do
        exec {connection}<>"/dev/tcp/127.0.0.1/$port"
        printf 'GET / HTTP/1.1\r\nHost: a\r\n\r\n' >&"$connection"
        connections+=("$connection")
    done
    expect_match "the first connection" "$(read_answer "${connections[0]}")" 'Hello, world$'
    until_true grep -q 'Too many open files' "$scratch/errors"
    expect_idle "$server_pid"
    expect "lines of complaint" "$(wc -l <"$scratch/errors")" 1
    for connection in "${connections[@]:0:25}"; do
        exec {connection}>&-
    done
    expect_match "the last connection, once others ended" "$(read_answer "${connections[29]}")" 'Hello, world$'
    stop
}

test_an_idle_server_uses_no_time() {
    local connection
    start "$1" 127.0.0.1 0
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET / HTTP/1.1\r\nHost: a\r\n\r\n' >&"$connection"
    read_answer "$connection" >/dev/null
    expect_idle "$server_pid"
    stop
}

test_several_processes_share_the_port_and_end_together() {
    local children pid
    start "$1" 127.0.0.1 0 3
    expect_status 'GET / HTTP/1.0\r\n\r\n' '200 OK'
    children=($(children_of "$server_pid"))
    expect "child processes" "${#children[@]}" 3
    stop
    for pid in "${children[@]}"; do
        until_true is_gone "$pid"
    done
}

test_a_reset_connection_does_not_end_the_server() {
    local connection
    start "$1" 127.0.0.1 0
    for _ in {1..20}; do
        exec {connection}<>"/dev/tcp/127.0.0.1/$port"
        printf 'GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n' >&"$connection"
        exec {connection}>&- # the answers come to a closed socket
    done
    until_true connections_are 1
    expect_status 'GET / HTTP/1.0\r\n\r\n' '200 OK'
    stop
}

run_case "$@"
