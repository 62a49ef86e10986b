# The examples that need no network: their whole output.
# Arguments: CASE COND COPYSTACK SPECIFIC SPECIFIC_C SETENV THREAD CLOSURE INSPECT
source "${BASH_SOURCE%/*}/lib.sh"

# expect_output WANTED COMMAND...: exactly that, and status 0
expect_output() {
    local wanted=$1 got
    shift
    got=$(timeout 20 "$@") || fail "status $? of $1, output: $got"
    expect "output of $1" "$got" "$wanted"
}

test_cond_consumes_every_task_once() {
    local output
    output=$(timeout 20 "$1" 100) || fail "status $?: $output"
    expect "first line" "${output%%$'\n'*}" 'nothing produced for 10 ms: the wait timed out'
    expect "tasks produced" "$(sed -n 's/^produced task //p' <<<"$output")" "$(seq 100)"
    expect "tasks consumed" "$(sed -n 's/^consumer [12] took task //p' <<<"$output")" "$(seq 100)"
    expect "consumers' ends" "$(grep ' ends$' <<<"$output" | sort)" $'consumer 1 ends\nconsumer 2 ends'
    expect "last line" "${output##*$'\n'}" 'produced 100, consumed 100'
}

test_copystack_keeps_each_coroutines_values() {
    local wanted='' round number
    for round in 1 2 3; do
        for number in 0 1 2 3; do
            wanted+="coroutine $number, round $round: its numbers are $number 10$number 20$number"$'\n'
        done
    done
    wanted+=$'coroutines 0 and 2 had their numbers at the same address: yes\n'
    wanted+=$'coroutines 1 and 3 had their numbers at the same address: yes\n'
    expect_output "${wanted}all values kept: yes" "$2"
}

test_specific_gives_each_coroutine_its_own_object() {
    expect_output 'coroutine 0: visits 1, name routine_0
coroutine 1: visits 1, name routine_1
coroutine 2: visits 1, name routine_2
coroutine 0: visits 2, name routine_0
coroutine 1: visits 2, name routine_1
coroutine 2: visits 2, name routine_2
main: visits 0' "$3"
}

test_specific_c_gives_each_coroutine_its_own_value() {
    expect_output 'coroutine 0: its value was unset, is 0 now
coroutine 1: its value was unset, is 10 now
coroutine 2: its value was unset, is 20 now
coroutine 0: its value is still 0
coroutine 1: its value is still 10
coroutine 2: its value is still 20
main: its value is unset' "$4"
}

test_setenv_gives_each_coroutine_its_own_variable() {
    expect_output 'coroutine 0: REQUEST_ID unset, set to request_0
coroutine 1: REQUEST_ID unset, set to request_1
coroutine 2: REQUEST_ID unset, set to request_2
coroutine 0: REQUEST_ID request_0, LAST_REQUEST request_2
coroutine 1: REQUEST_ID request_1, LAST_REQUEST request_2
coroutine 2: REQUEST_ID request_2, LAST_REQUEST request_2
main: REQUEST_ID unset, LAST_REQUEST request_2' env -u REQUEST_ID -u LAST_REQUEST "$5"
}

test_setenv_leaves_the_process_variable_alone() {
    local output
    output=$(REQUEST_ID=outer "$5") || fail "status $?"
    expect "first line" "${output%%$'\n'*}" 'coroutine 0: REQUEST_ID unset, set to request_0'
    expect "last line" "${output##*$'\n'}" 'main: REQUEST_ID outer, LAST_REQUEST request_2'
}

test_thread_runs_a_loop_in_each_thread() {
    local wanted='' number
    for number in 1 2 3 4; do
        wanted+="thread $number: 10 coroutines woke 50 times, all in their own thread"$'\n'
    done
    expect_output "${wanted%$'\n'}" "$6" 4
}

test_closure_binds_by_reference_and_by_copy() {
    expect_output 'closure 0 starts
closure 1 starts
closure 2 starts
closure 0 adds 0 to 100
closure 1 adds 10 to 100
closure 2 adds 20 to 110
order: 0 1 2, total 130' "$7"
}

test_inspect_shows_what_every_coroutine_does() {
    local output n='[0-9]+' ms='[0-9]+ +'
    output=$(timeout 20 "$8") || fail "status $?: $output"
    expect "first line" "${output%%$'\n'*}" 'NAME      STATE      WAITS FOR             WAITED ms  LEFT ms  STACK  MOST    OF'
    expect "lines" "$(wc -l <<<"$output")" 11
    expect_match "reader" "$output" $'\n'"reader +waiting +descriptor $n \\(read\\) +$ms(2[0-9]{4}|30000) +$n +$n +128K"
    expect_match "sleeper" "$output" $'\n'"sleeper +waiting +time +$ms$n +$n +$n +128K"
    expect_match "chooser" "$output" $'\n'"chooser +waiting +2 descriptors +$ms- +$n +$n +128K"
    expect_match "consumer" "$output" $'\n'"consumer +waiting +condition +$ms- +$n +$n +128K"
    expect_match "lazy" "$output" $'\n'"lazy +suspended +- +0 +- +$n +$n +128K"
    expect_match "parent" "$output" $'\n'"parent +resuming +- +0 +- +$n +$n +128K"
    expect_match "status" "$output" $'\n'"status +running +- +0 +- +$n +- +128K"
    expect_match "done" "$output" $'\n'"done +ended +- +0 +- +0 +$n +128K"
    expect_match "new" "$output" $'\n'"new +new +- +0 +- +0 +$n +128K"
    expect_match "counters" "${output##*$'\n'}" \
        "^9 coroutines live of 9 created, 9 stacks in use, 18 switches, 5 waits, 1 woken, 2 timers, $n epoll_wait\$"
}

run_case "$@"
