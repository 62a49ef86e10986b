# OpenSSL's blocking BIOs and nginx.
source "${BASH_SOURCE%/*}/lib.sh"
source "${BASH_SOURCE%/*}/nginx.sh"

works() {
    run 60 "${prefix[@]}" "$program" 127.0.0.1 "$tls_port" "$scratch/ca.pem"
    expect_line '100 handshakes: all connections open at once'
    expect_line '100 coroutines: 1000 echoes right'
}

# A server that does the handshake and then does not read, since nobody reads what it prints, holds up only who writes
# to it.
long_write() {
    local pid status=0 sink_port sink_bytes
    sink_port=$(free_port)
    mkfifo "$scratch/fifo" "$scratch/silence"
    chmod 666 "$scratch/fifo" "$scratch/silence"
    exec {drain}<>"$scratch/fifo" {silence}<>"$scratch/silence"
    (as_user www-data openssl s_server -quiet -accept "127.0.0.1:$sink_port" -cert "$scratch/ca.pem" \
        -key "$scratch/key.pem" <&"$silence" >"$scratch/fifo" 2>>"$scratch/server.log") &
    started+=("$!")
    until_true is_bound "$sink_port"
    timeout -k 5 30 "$program" 127.0.0.1 "$tls_port" "$scratch/ca.pem" 100 "$sink_port" >"$scratch/out" 2>&1 &
    pid=$!
    # BIO_connect calls ioctl(FIONBIO, 0): a library that does not take note of it has a blocking socket from then on.
    for _ in {1..100}; do
        is_gone_or_says "$pid" '100 coroutines: 1000 echoes right' && break
        sleep 0.05
    done
    is_gone_or_says "$pid" '100 coroutines: 1000 echoes right' || fail "a write that waits holds up the whole thread"
    sink_bytes=$(head -c 16777216 <&"$drain" | wc -c)
    wait "$pid" || status=$?
    out=$(<"$scratch/out")
    printf '%s\n' "$out"
    ((status == 0)) || fail "$program ended with status $status (124: it hung)"
    ((sink_bytes == 16777216)) || fail "the sink got $sink_bytes bytes"
    expect_line '16777216 bytes written to the sink'
}

# A connection to try it would be taken for the client.
is_bound() {
    grep -q ":$(printf %04X "$1") 00000000:0000 0A" /proc/net/tcp
}

is_gone_or_says() {
    is_gone "$1" || grep -qsx "$2" "$scratch/out"
}

preload() {
    local client=(openssl s_client -quiet -CAfile "$scratch/ca.pem" -verify_return_error -verify_ip 127.0.0.1)
    printf 'GET /echo?answer HTTP/1.0\r\n\r\n' >"$scratch/request"
    input=$scratch/request
    # The answer's date, and the address of the thread in front of an error.
    differs='/^Date:/d; s/^[0-9A-F]*:error:/error:/'
    same_preloaded "${client[@]}" -ign_eof -connect "127.0.0.1:$tls_port"
    expect_output '^answer$'
    printf 'GET /file HTTP/1.0\r\n\r\n' >"$scratch/request"
    same_preloaded "${client[@]}" -ign_eof -connect "127.0.0.1:$tls_port"
    tail -c 1048576 "$scratch/with" | cmp - "$scratch/files/file"
    same_preloaded openssl s_client -quiet -verify_return_error -connect "127.0.0.1:$tls_port"
    expect_output 'self-signed certificate'
    input=$scratch/files/file
    same_preloaded openssl dgst -sha256
    echo_by_s_server
}

# The distribution's own server under our library as well: s_server turns every line round.
echo_by_s_server() {
    local port
    port=$(free_port)
    start_server www-data env "LD_PRELOAD=$colib_so" openssl s_server -quiet -rev -accept "127.0.0.1:$port" \
        -cert "$scratch/ca.pem" -key "$scratch/key.pem"
    until_true listens "$port"
    printf 'one\ntwo\nCLOSE\n' >"$scratch/lines"
    input=$scratch/lines
    same_preloaded "${client[@]}" -connect "127.0.0.1:$port"
    expect_output '^owt$'
}

run_case "$@"
