# libmemcached and memcached.
source "${BASH_SOURCE%/*}/lib.sh"
needs memcached memcached
needs libmemcached-tools memccat memcping memccp

serve() {
    port=$(free_port)
    start_server memcache memcached -l 127.0.0.1 -p "$port" -U "$port" -t 1 -m 64
    until_true listens "$port"
    second_port=$(free_port)
    start_server memcache memcached -l 127.0.0.1 -p "$second_port" -U 0 -t 1 -m 64
    until_true listens "$second_port"
}

# The second server stands still until all coroutines of the first are done.
works() {
    local pid status=0
    kill -STOP "$server_pid"
    timeout -k 5 30 "${prefix[@]}" "$program" 127.0.0.1 "$port" "$second_port" >"$scratch/out" 2>&1 &
    pid=$!
    until_true is_gone_or_says "$pid" 'first server: 50 coroutines, 1000 values right'
    kill -CONT "$server_pid"
    wait "$pid" || status=$?
    out=$(<"$scratch/out")
    printf '%s\n' "$out"
    ((status == 0)) || fail "$program ended with status $status (124: it hung)"
    expect_line 'by UDP: 50 values right'
    expect_line 'first server: 50 coroutines, 1000 values right'
    expect_line 'second server: 50 coroutines, 1000 values right'
}

is_gone_or_says() {
    is_gone "$1" || grep -qsx "$2" "$scratch/out"
}

preload() {
    local servers=--servers="127.0.0.1:$port"
    head -c 300000 /dev/urandom | base64 >"$scratch/value"
    same_preloaded memccp "$servers" "$scratch/value"
    same_preloaded memccat "$servers" value
    cmp "$scratch/with" <(cat "$scratch/value" && echo) || cmp "$scratch/with" "$scratch/value"
    same_preloaded memccat "$servers" missing
    same_preloaded memcping "$servers"
    differs="s/(0x[0-9a-f]*)//" # the address of an object
    same_preloaded memccat --servers="127.0.0.1:$(free_port)" value
}

run_case "$@"
