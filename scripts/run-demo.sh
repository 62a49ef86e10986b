#!/usr/bin/env bash
# The main job, shown: the HTTP server and the echo server of c_examples under the load of wrk.
#
# DEMO_SECONDS (5) of load for each of DEMO_CONNECTIONS ("50 500 5000") connections, on a server of
# DEMO_PROCESSES (1) processes. Fails if wrk reports an error or a server does not end well.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${DEMO_SECONDS:-5}
processes=${DEMO_PROCESSES:-1}
ip=127.0.0.1

die() {
    printf 'run-demo: %s\n' "$*" >&2
    exit 1
}

ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
descriptors=$(ulimit -n)
cores=$(nproc)
threads=$((cores > processes ? cores - processes : 1))

server_pid='' load_pid=''
output=$(mktemp)
end_all() {
    local pid
    for pid in $load_pid $server_pid; do kill "$pid" 2>/dev/null || true; done
    for pid in $load_pid $server_pid; do wait "$pid" 2>/dev/null || true; done
    rm -f "$output"
}
trap end_all EXIT
trap 'exit 130' INT TERM

# start_server COMMAND...: sets server_pid and port.
start_server() {
    local line=''
    exec {server_out}< <(exec "$@")
    server_pid=$!
    read -r -t 20 -u "$server_out" line || true
    [[ $line == "listening on $ip:"* ]] || die "$1 did not start to listen (it said '$line')"
    port=${line##*:}
}

stop_server() {
    local status=0
    kill -TERM "$server_pid" 2>/dev/null || true
    wait "$server_pid" || status=$?
    server_pid=''
    exec {server_out}<&-
    return "$status"
}

# Resident KiB of the server and its child processes.
server_memory() {
    local pids=$server_pid pid
    pids+=" $(cat "/proc/$server_pid/task/$server_pid/children" 2>/dev/null)" || true
    for pid in $pids; do cat "/proc/$pid/status" 2>/dev/null || true; done |
        awk '/^VmRSS:/ { sum += $2 } END { print sum + 0 }'
}

# The server's memory once it has settled: twice the same.
settled_memory() {
    local before='' now
    now=$(server_memory)
    while [[ $now != "$before" ]]; do
        sleep 0.1
        before=$now
        now=$(server_memory)
    done
    echo "$now"
}

rows=()
failed=0

# load NAME CONNECTIONS BASE_MEMORY WRK_ARGUMENT...: loads the running server, adds a row.
load() {
    local name=$1 connections=$2 base=$3 peak=0 now status=0 rate p50 p99 errors
    shift 3
    printf '%s, %d connections, %d s\n' "$name" "$connections" "$seconds"
    wrk --threads "$((threads < connections ? threads : connections))" --connections "$connections" --duration "${seconds}s" \
        --timeout 5s --latency "$@" "http://$ip:$port/" >"$output" 2>&1 &
    load_pid=$!
    while kill -0 "$load_pid" 2>/dev/null; do
        now=$(server_memory)
        peak=$((now > peak ? now : peak))
        sleep 0.2
    done
    wait "$load_pid" || status=$?
    load_pid=''

    rate=$(awk '$1 == "Requests/sec:" { print int($2 + 0.5) }' "$output")
    p50=$(awk '$1 ~ /^50(\.0+)?%$/ { print $2; exit }' "$output")
    p99=$(awk '$1 ~ /^99(\.0+)?%$/ { print $2; exit }' "$output")
    # "Socket errors: connect 0, read 0, write 0, timeout 0" and "Non-2xx or 3xx responses: 0", each only if there are any.
    errors=$(awk '/^ *Socket errors:/ { gsub(",", ""); sum += $4 + $6 + $8 + $10 }
        /^ *Non-2xx or 3xx responses:/ { sum += $NF }
        END { print sum + 0 }' "$output")
    if [[ $status != 0 || -z $rate || -z $p50 || -z $p99 || $rate == 0 || $errors != 0 ]]; then
        failed=1
        echo "run-demo: this load went wrong; wrk (status $status) says:" >&2
        cat "$output" >&2
    fi
    rows+=("$(printf '%-6s %11d %12s %10s %10s %7s %12s %14s' "$name" "$connections" "${rate:--}" "${p50:--}" "${p99:--}" \
        "$errors" "$(awk "BEGIN { printf \"%.1f\", $peak / 1024 }")" \
        "$(awk "BEGIN { printf \"%.2f\", ($peak - $base) / $connections }")")")
}

finish_server() {
    local status=0
    stop_server || status=$?
    if [[ $status != 0 ]]; then
        failed=1
        echo "run-demo: the $1 server ended with status $status" >&2
    fi
}

bounded() {
    local wanted=$1
    if [[ $descriptors != unlimited ]] && ((wanted > descriptors - 200)); then wanted=$((descriptors - 200)); fi
    echo "$wanted"
}

for wanted in ${DEMO_CONNECTIONS:-50 500 5000}; do
    connections=$(bounded "$wanted")
    start_server ./example_httpsvr $ip 0 "$processes"
    base=$(settled_memory)
    load http "$connections" "$base"
    finish_server http
done

for wanted in ${DEMO_CONNECTIONS:-50 500 5000}; do
    connections=$(bounded "$wanted")
    # The server makes its coroutines beforehand; what it weighs without them tells what they cost.
    start_server ./example_echosvr $ip 0 1 "$processes"
    base=$(settled_memory)
    finish_server echo
    # Connections are not spread evenly over the processes: each can take all. One more is wrk's own probe.
    start_server ./example_echosvr $ip 0 "$((connections + 10))" "$processes"
    load echo "$connections" "$base" --script scripts/wrk-echo.lua
    finish_server echo
done

printf '\ncolib %s, %s, %d cores: servers of %d process, wrk with %d threads, loopback\n\n' \
    "$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)" "$(uname -sr)" "$cores" "$processes" "$threads"
printf '%-6s %11s %12s %10s %10s %7s %12s %14s\n' server connections requests/s p50 p99 errors 'memory MiB' 'KiB/connection'
printf '%s\n' "${rows[@]}"
printf '\nMemory is what the server has resident under load, without the kernel'\''s socket buffers; per connection, what
it has more than the same server with no connection.\n'
exit "$failed"
