# libcurl and nginx.
source "${BASH_SOURCE%/*}/lib.sh"
source "${BASH_SOURCE%/*}/nginx.sh"
needs curl curl

works() {
    local base
    for base in "http://127.0.0.1:$port" "https://127.0.0.1:$tls_port"; do
        run 60 "${prefix[@]}" "$program" "$base/file" "$base/slow" 100 "$scratch/ca.pem"
        expect_line 'reference: 1048576 bytes'
        expect_line '99 coroutines: 297 files in .* s, every byte right, one connection each'
        expect_line 'the slow file: .* s, every byte right, after all others'
    done
}

preload() {
    local tls="https://127.0.0.1:$tls_port" plain="http://127.0.0.1:$port"
    same_preloaded curl -sS --noproxy '*' "$plain/file"
    cmp "$scratch/with" "$scratch/files/file"
    same_preloaded curl -sS --noproxy '*' --cacert "$scratch/ca.pem" "$tls/slow"
    cmp "$scratch/with" "$scratch/files/file"
    same_preloaded curl -sS --noproxy '*' --cacert "$scratch/ca.pem" "$tls/echo?[1-20]"
    # Its progress meter, which stays on with -Z, tells times.
    same_preloaded bash -c '"$@" 2>/dev/null' parallel curl -sS --noproxy '*' -Z --cacert "$scratch/ca.pem" \
        "$tls/file" -o "$scratch/one" "$tls/file" -o "$scratch/two" "$tls/file" -o "$scratch/three"
    cmp "$scratch/one" "$scratch/files/file"
    cmp "$scratch/three" "$scratch/files/file"
    same_preloaded curl -sS --noproxy '*' -f "$plain/missing"
    expect_output '404'
    same_preloaded curl -sS --noproxy '*' "$tls/file"
    expect_output 'self-signed certificate'
    differs='s/after [0-9]* m.*//' # how long it took, and how far it came
    same_preloaded curl -sS --noproxy '*' -m 1 "$plain/slow" -o "$scratch/part"
    same_preloaded curl -sS --noproxy '*' "http://127.0.0.1:$(free_port)/"
    expect_output 'Failed to connect'
}

run_case "$@"
