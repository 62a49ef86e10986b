# libmariadb and mariadb-server.
source "${BASH_SOURCE%/*}/lib.sh"
needs mariadb-server mariadbd mariadb-install-db
needs mariadb-client mariadb

serve() {
    port=$(free_port)
    folder_of mysql
    (as_user mysql mariadb-install-db --no-defaults --datadir="$scratch/data" --auth-root-authentication-method=normal \
        --skip-test-db --innodb-log-file-size=4M) >"$scratch/install.log" 2>&1 ||
        fail "mariadb-install-db: $(tail -n 20 "$scratch/install.log")"
    serve_again
}

serve_again() {
    start_server mysql mariadbd --no-defaults --datadir="$scratch/data" --bind-address=127.0.0.1 --port="$port" \
        --socket="$scratch/socket" --skip-name-resolve --innodb-buffer-pool-size=8M --innodb-log-file-size=4M \
        --innodb-flush-log-at-trx-commit=0
    until_true mariadb --no-defaults -h 127.0.0.1 -P "$port" -u root -e 'SELECT 1'
}

works() {
    run 90 "${prefix[@]}" "$program" 127.0.0.1 "$port" root ''
    expect_line '50 coroutines in SLEEP\(0\.2\): .*'
    under_a_second
    expect_line '20000 queries: every result right'
    if ((${#prefix[@]} == 0)); then
        a_killed_server_gives_errors
    fi
}

a_killed_server_gives_errors() {
    local pid status=0
    timeout -k 5 30 "$program" 127.0.0.1 "$port" root '' killed >"$scratch/killed" 2>&1 &
    pid=$!
    until_true grep -q '^waiting$' "$scratch/killed"
    until_true all_sleep
    { kill -KILL "$server_pid" && wait "$server_pid"; } 2>/dev/null || true
    wait "$pid" || status=$?
    out=$(<"$scratch/killed")
    printf '%s\n' "$out"
    ((status == 0)) || fail "$program ended with status $status when the server was killed (124: it hung)"
    expect_line '50 coroutines got an error'
    serve_again
}

all_sleep() {
    local count
    count=$(mariadb --no-defaults -h 127.0.0.1 -P "$port" -u root -N \
        -e "SELECT count(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(60)'")
    ((count == 50))
}

preload() {
    local at=(mariadb --no-defaults -h 127.0.0.1 -P "$port" -u root)
    same_preloaded "${at[@]}" -e 'SELECT 6 * 7 AS answer'
    expect_output '^42$'
    same_preloaded "${at[@]}" -e "SELECT seq, repeat('x', 100) FROM seq_1_to_20000" mysql
    same_preloaded "${at[@]}" -e 'SELECT SLEEP(1.5), 1 AS late'
    same_preloaded "${at[@]}" -e 'SELECT nonsense'
    expect_output 'Unknown column'
    same_preloaded mariadb --no-defaults -h 127.0.0.1 -P "$(free_port)" -u root -e 'SELECT 1'
    expect_output "Can't connect"
}

run_case "$@"
