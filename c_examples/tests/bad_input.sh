# Bad input: each time a message on standard error that tells what was wrong and how to call the program, and status 1.
# Arguments: CASE ECHOSVR ECHOCLI HTTPSVR POLL COND COPYSTACK SPECIFIC SPECIFIC_C SETENV THREAD CLOSURE INSPECT
source "${BASH_SOURCE%/*}/lib.sh"

# refuses MESSAGE COMMAND...
refuses() {
    local message=$1 status=0 errors
    shift
    timeout 20 "$@" >"$scratch/out" 2>"$scratch/refusal" || status=$?
    errors=$(<"$scratch/refusal")
    expect "status of $*" "$status" 1
    expect "standard output of $*" "$(<"$scratch/out")" ''
    expect "first line of standard error of $*" "${errors%%$'\n'*}" "${1##*/}: $message"
    expect_match "second line of standard error of $*" "${errors#*$'\n'}" "^usage: ${1##*/}( |\$)"
}

number() {
    echo "$1 must be a number from $2 to $3, not '$4'"
}

test_echosvr_tells_what_is_wrong() {
    refuses 'too few arguments' "$1"
    refuses 'too few arguments' "$1" 127.0.0.1 0 1
    refuses "$(number PORT 0 65535 x)" "$1" 127.0.0.1 x 1 1
    refuses "$(number PORT 0 65535 65536)" "$1" 127.0.0.1 65536 1 1
    refuses "$(number PORT 0 65535 -1)" "$1" 127.0.0.1 -1 1 1
    refuses "$(number PORT 0 65535 80x)" "$1" 127.0.0.1 80x 1 1
    refuses "$(number PORT 0 65535 '')" "$1" 127.0.0.1 '' 1 1
    refuses "$(number TASK_COUNT 1 1000000 0)" "$1" 127.0.0.1 0 0 1
    refuses "$(number PROCESS_COUNT 1 1024 99999999999999999999)" "$1" 127.0.0.1 0 1 99999999999999999999
    refuses "'localhost' is not an IPv4 address" "$1" localhost 0 1 1
    refuses "'1.2.3.4.5' is not an IPv4 address" "$1" 1.2.3.4.5 0 1 1
    refuses "unexpected argument '-x'" "$1" 127.0.0.1 0 1 1 -x
    refuses "unexpected argument 'more'" "$1" 127.0.0.1 0 1 1 -d more
}

test_echosvr_tells_that_a_port_is_in_use() {
    start "$1" 127.0.0.1 0 1 1
    refuses "cannot listen on 127.0.0.1:$port: Address already in use" "$1" 127.0.0.1 "$port" 1 1
    stop
}

test_echosvr_tells_that_an_address_is_not_its_own() {
    refuses 'cannot listen on 192.0.2.1:0: Cannot assign requested address' "$1" 192.0.2.1 0 1 1
}

test_echocli_tells_what_is_wrong() {
    refuses 'too few arguments' "$2" 127.0.0.1
    refuses "$(number PORT 1 65535 0)" "$2" 127.0.0.1 0 1 1
    refuses "$(number TASK_COUNT 1 1000000 many)" "$2" 127.0.0.1 1 many 1
    refuses "$(number PROCESS_COUNT 1 1024 0)" "$2" 127.0.0.1 1 1 0
    refuses "$(number SECONDS 1 1000000 0.5)" "$2" 127.0.0.1 1 1 1 0.5
    refuses "'nowhere' is not an IPv4 address" "$2" nowhere 1 1 1
    refuses "unexpected argument '9'" "$2" 127.0.0.1 1 1 1 1 9
}

test_httpsvr_tells_what_is_wrong() {
    refuses 'too few arguments' "$3" 127.0.0.1
    refuses "$(number PORT 0 65535 http)" "$3" 127.0.0.1 http
    refuses "$(number PROCESS_COUNT 1 1024 0)" "$3" 127.0.0.1 0 0
    refuses "$(number IDLE_SECONDS 1 1000000 ' 1')" "$3" 127.0.0.1 0 1 ' 1'
    refuses "'' is not an IPv4 address" "$3" '' 0
    refuses "unexpected argument 'x'" "$3" 127.0.0.1 0 1 1 x
}

test_httpsvr_tells_that_a_port_is_in_use() {
    start "$3" 127.0.0.1 0
    refuses "cannot listen on 127.0.0.1:$port: Address already in use" "$3" 127.0.0.1 "$port"
    stop
}

test_poll_tells_what_is_wrong() {
    refuses 'too few arguments' "$4"
    refuses 'too few arguments' "$4" -t 5
    refuses "$(number MILLISECONDS 1 3600000 0)" "$4" -t 0 127.0.0.1:1
    refuses "'127.0.0.1' is not IP:PORT" "$4" 127.0.0.1
    refuses "'somewhere-with-a-long-name:1' is not IP:PORT" "$4" somewhere-with-a-long-name:1
    refuses "'1.2.3' is not an IPv4 address" "$4" 127.0.0.1:1 1.2.3:1
    refuses "$(number PORT 1 65535 0)" "$4" 127.0.0.1:0
}

test_cond_tells_what_is_wrong() {
    refuses "$(number TASK_COUNT 1 1000000 -5)" "$5" -5
    refuses "unexpected argument 'more'" "$5" 1 more
}

test_thread_tells_what_is_wrong() {
    refuses 'too few arguments' "${10}"
    refuses "$(number THREAD_COUNT 1 10000 two)" "${10}" two
    refuses "unexpected argument '2'" "${10}" 1 2
}

test_programs_without_arguments_refuse_them() {
    local program
    for program in "$6" "$7" "$8" "$9" "${11}" "${12}"; do
        refuses "unexpected argument 'x'" "$program" x
    done
}

run_case "$@"
