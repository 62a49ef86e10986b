# hiredis and redis-server.
source "${BASH_SOURCE%/*}/lib.sh"
needs redis-server redis-server
needs redis-tools redis-cli

serve() {
    port=$(free_port)
    folder_of redis
    start_server redis redis-server --bind 127.0.0.1 --port "$port" --dir "$scratch" --save '' --appendonly no
    until_true listens "$port"
}

works() {
    run 60 "${prefix[@]}" "$program" 127.0.0.1 "$port"
    expect_line '200 coroutines: 100 waited in BLPOP, 100 woke them'
    expect_line '4 pipelines of 10000 commands: every reply in its place'
}

preload() {
    same_preloaded redis-cli -h 127.0.0.1 -p "$port" SET name value
    same_preloaded redis-cli -h 127.0.0.1 -p "$port" GET name
    expect_output '^value$'
    same_preloaded redis-cli -h 127.0.0.1 -p "$port" BLPOP nothing 1
    same_preloaded redis-cli -e -h 127.0.0.1 -p "$port" NO_SUCH_COMMAND
    same_preloaded redis-cli -h 127.0.0.1 -p "$(free_port)" GET name
    expect_output 'Connection refused'
    yes 'INCR counter' | head -n 5000 >"$scratch/commands" || true
    input=$scratch/commands
    same_preloaded sh -c "redis-cli -h 127.0.0.1 -p $port SET counter 0 && redis-cli -h 127.0.0.1 -p $port"
    expect_output '^5000$'
}

run_case "$@"
