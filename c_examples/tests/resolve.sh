# example_resolve. Arguments: CASE RESOLVE
source "${BASH_SOURCE%/*}/lib.sh"

test_resolve_prints_the_answers_in_the_order_of_the_names() {
    local output lines
    output=$(timeout 20 "$1" 192.0.2.1 localhost 2001:db8::1) || fail "status $?: $output"
    mapfile -t lines <<<"$output"
    expect "number of lines" "${#lines[@]}" 3
    expect "first line" "${lines[0]}" '192.0.2.1: 192.0.2.1'
    expect_match "second line" "${lines[1]}" '^localhost:( (127\.0\.0\.1|::1))+$'
    expect "third line" "${lines[2]}" '2001:db8::1: 2001:db8::1'
}

# A label of 64 characters is too long to be sent to any name server.
test_resolve_says_why_a_name_has_no_answer() {
    local output status=0 name
    name=$(printf 'x%.0s' {1..64}).example
    output=$(timeout 20 "$1" -t 1 "$name" 192.0.2.1 2>&1) || status=$?
    expect "status" "$status" 1
    expect_match "first line" "${output%%$'\n'*}" "^$name: [A-Z].* .*"
    expect "last line" "${output##*$'\n'}" '192.0.2.1: 192.0.2.1'
}

test_resolve_looks_up_more_names_than_there_are_threads() {
    local names output
    mapfile -t names < <(yes localhost | head -n 200)
    output=$(timeout 20 "$1" -t 2 "${names[@]}") || fail "status $?: $output"
    expect "different answers" "$(sort -u <<<"$output" | wc -l)" 1
    expect "answers" "$(wc -l <<<"$output")" 200
}

test_resolve_refuses_bad_arguments() {
    local bad status
    for bad in '' '-t 0 localhost' '-t 1025 localhost' '-t x localhost' '-t 1' '-x'; do
        status=0
        # shellcheck disable=SC2086
        "$1" $bad >"$scratch/out" 2>"$scratch/errors" || status=$?
        expect "status for '$bad'" "$status" 1
        expect "output for '$bad'" "$(<"$scratch/out")" ''
        expect "last line for '$bad'" "$(tail -n 1 "$scratch/errors")" \
            "usage: $(basename "$1") [-t THREADS] NAME ..."
    done
}

run_case "$@"
