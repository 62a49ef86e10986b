# libpq and postgresql.
source "${BASH_SOURCE%/*}/lib.sh"
needs postgresql-client psql
for postgres in /usr/lib/postgresql/*/bin; do
    PATH=$postgres:$PATH
done
needs postgresql initdb postgres

serve() {
    port=$(free_port)
    folder_of postgres
    (as_user postgres "$(command -v initdb)" -D "$scratch/data" -U colib -A trust --no-sync --locale=C -E UTF8) \
        >"$scratch/initdb.log" 2>&1 || fail "initdb: $(<"$scratch/initdb.log")"
    start_server postgres "$(command -v postgres)" -D "$scratch/data" -h 127.0.0.1 -p "$port" -k "$scratch" \
        -c fsync=off -c max_connections=80 -c shared_buffers=16MB
    until_true psql "host=127.0.0.1 port=$port user=colib dbname=postgres" -c 'SELECT 1'
}

works() {
    run 60 "${prefix[@]}" "$program" "hostaddr=127.0.0.1 port=$port user=colib dbname=postgres"
    expect_line '50 coroutines in pg_sleep\(0\.2\): .*'
    under_a_second
    expect_line '50 transactions: the table has 50 rows, their sum is right'
}

preload() {
    local at=(psql -X "host=127.0.0.1 port=$port user=colib dbname=postgres")
    same_preloaded "${at[@]}" -c 'SELECT 6 * 7 AS answer'
    expect_output ' 42$'
    same_preloaded "${at[@]}" -c "SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n"
    same_preloaded "${at[@]}" -c 'SELECT pg_sleep(1.5), 1 / 1 AS late'
    same_preloaded "${at[@]}" -c 'SELECT 1 / 0'
    expect_output 'division by zero'
    same_preloaded psql -X "host=127.0.0.1 port=$(free_port) user=colib dbname=postgres" -c 'SELECT 1'
    expect_output 'Connection refused'
}

run_case "$@"
