# OpenSSL's blocking BIOs and nginx.
source "${BASH_SOURCE%/*}/lib.sh"
source "${BASH_SOURCE%/*}/nginx.sh"

works() {
    run 60 "${prefix[@]}" "$program" 127.0.0.1 "$tls_port" "$scratch/ca.pem"
    expect_line '100 handshakes: all connections open at once'
    expect_line '100 coroutines: 1000 echoes right'
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
