#!/usr/bin/env bash
# Runs the C++ tests, built in $BUILD_DIR and linked to the static library, under valgrind: memcheck (the default) or another of
# its tools.
#
#   scripts/valgrind.sh [-t TOOL] [PATTERN]     PATTERN: a part of the tests' names, all by default
#
# Any error and any byte definitely lost fails, also in the children that a test forks. One line a test; what valgrind says of
# those that fail is in $BUILD_DIR/valgrind.
set -uo pipefail
cd "$(dirname "$0")/.."

build=${BUILD_DIR:-build}
jobs=${JOBS:-$(nproc)}
tool=memcheck
while getopts t: option; do
    case $option in
    t) tool=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
pattern=${1:-}

logs=$build/valgrind
rm -rf "$logs"
mkdir -p "$logs"

# Tests that valgrind cannot run as they are meant, and why.
declare -A except=(
    [test_hook_added_off]="counts system calls by ptrace, valgrind's own among them"
)

options=(--tool="$tool" --error-exitcode=99 --suppressions=tests/valgrind.supp --fullpath-after=)
if [[ $tool == memcheck ]]; then
    options+=(--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite)
fi

run_one() {
    local program=$1 name log start=$SECONDS status=0
    name=$(basename "$program" _static)
    log=$PWD/$logs/$name
    timeout 1200 valgrind "${options[@]}" --log-file="$log.%p.log" "$program" >"$log.out" 2>&1 || status=$?
    local errors
    errors=$(grep -hs 'ERROR SUMMARY' "$log".*.log | awk '{ n += $4 } END { print n + 0 }')
    if ((status == 0 && errors == 0)); then
        rm -f "$log".*.log "$log.out"
        printf 'ok     %4d s  %s\n' $((SECONDS - start)) "$name"
    else
        printf 'FAILED %4d s  %s: status %d, %d errors: %s\n' $((SECONDS - start)) "$name" "$status" "$errors" "$logs/$name.*"
    fi
}

shopt -s nullglob
running=0
for program in "$build"/cpp_tests/test_*"$pattern"*_static; do
    name=$(basename "$program" _static)
    if [[ -n ${except[$name]:-} ]]; then
        printf 'skipped         %s: %s\n' "$name" "${except[$name]}"
        continue
    fi
    if ((running == jobs)); then
        wait -n
        ((running--))
    fi
    run_one "$program" &
    ((running++))
done > >(tee "$logs/summary")
wait
sleep 0.1
passed=$(grep -c '^ok' "$logs/summary")
failed=$(grep -c '^FAILED' "$logs/summary")
echo "valgrind ($tool): $passed passed, $failed failed, $(grep -c '^skipped' "$logs/summary") skipped"
((failed == 0 && passed > 0))
