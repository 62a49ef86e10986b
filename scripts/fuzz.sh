#!/usr/bin/env bash
# Feeds the library's parts with bytes that libFuzzer makes up, and compares what they do with models (src/fuzzing).
#
#   scripts/fuzz.sh short                  every kept input once, then a bounded number of new ones
#   scripts/fuzz.sh SECONDS [TARGET]       new inputs for so long, of each target or of one
#   scripts/fuzz.sh replay TARGET FILE...  these inputs alone
#   scripts/fuzz.sh keep [TARGET]          what was found since goes to fuzz/corpus, as few inputs as cover the same
#
# New inputs gather in build/fuzz/corpus, those that fail in build/fuzz/failed. The exit status is 1 if any did.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
PATH=$PATH:$(dirname "$cargo"):$HOME/.cargo/bin # rustc lies beside cargo
build=$(realpath -m "${BUILD_DIR:-build}")/fuzz
export CARGO_TARGET_DIR
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# Coroutines leave their frames behind, and copy stacks are moved as they are: AddressSanitizer takes both for errors.
plain_targets=(poll calls)

die() {
    printf 'fuzz: %s\n' "$*" >&2
    exit 2
}

all_targets() {
    local file
    for file in fuzz/fuzz_targets/*.rs; do basename "$file" .rs; done
}

is_plain() {
    [[ " ${plain_targets[*]} " == *" $1 "* ]]
}

# The flags that cargo-fuzz would pass.
coverage_flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"

# build_targets FOLDER FLAGS TARGET...
build_targets() {
    local folder=$1 flags=$2 bins=() target
    shift 2
    (($#)) || return 0
    for target; do bins+=(--bin "$target"); done
    # Sanitizers are not stable yet; the compiler is the one that builds the library.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=$(tr -s '\n ' ' ' <<<"$coverage_flags $flags") "$cargo" build --quiet --release \
        --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$CARGO_TARGET_DIR/$folder" "${bins[@]}"
}

build_all() {
    local target checked=() plain=()
    for target; do
        if is_plain "$target"; then plain+=("$target"); else checked+=("$target"); fi
    done
    build_targets address -Zsanitizer=address "${checked[@]}"
    build_targets plain "" "${plain[@]}"
}

program_of() {
    local folder=address
    if is_plain "$1"; then folder=plain; fi
    echo "$CARGO_TARGET_DIR/$folder/$host/release/$1"
}

# folders_of TARGET: what is kept.
kept_of() {
    local folder
    for folder in fuzz/corpus/"$1" fuzz/regressions/"$1"; do
        if [[ -d $folder ]]; then echo "$folder"; fi
    done
}

# run TARGET OPTION...: says what to do about an input that fails.
run() {
    local target=$1 log=$build/$1.log
    shift
    mkdir -p "$build/failed" "$build/corpus/$target"
    local status=0
    "$(program_of "$target")" -artifact_prefix="$build/failed/$target-" -timeout=20 -rss_limit_mb=2048 "$@" \
        >"$log" 2>&1 || status=$?
    if ((status == 0)); then
        grep -E '^(Done|stat::number_of_executed_units)|DONE' "$log" | tail -n 1 | sed "s/^/$target: /"
        return 0
    fi
    tail -n 60 "$log"
    echo "fuzz: $target: status $status"
    sed -n 's/.*Test unit written to \(.*\)/\1/p' "$log" | while read -r file; do
        printf '\nfuzz: %s fails; run it again by: scripts/fuzz.sh replay %s %s\n' "$target" "$target" "$file"
    done
    return 1
}

# short TARGET: the kept inputs, then some new ones; the bound on runs ends it on a fast machine, that on time on a slow one.
short() {
    local target=$1 kept
    mapfile -t kept < <(kept_of "$target")
    ((${#kept[@]})) || die "fuzz/corpus/$target is missing"
    run "$target" -runs=0 "${kept[@]}" || return 1
    run "$target" -runs=200000 -max_total_time=4 -max_len=1024 "$build/corpus/$target" "${kept[@]}"
}

long() {
    local target=$1 seconds=$2 kept
    mapfile -t kept < <(kept_of "$target")
    run "$target" -max_total_time="$seconds" -max_len=2048 -use_value_profile=1 "$build/corpus/$target" "${kept[@]}"
}

# Small inputs first: those that cover no more than what is there already are left out.
keep() {
    local target=$1 kept=fuzz/corpus/$1 fewer=$build/fewer
    rm -rf "$fewer"
    mkdir -p "$fewer" "$kept" "$build/corpus/$target"
    run "$target" -set_cover_merge=1 -use_counters=0 "$fewer" "$kept" "$build/corpus/$target" || return 1
    rm -f "$kept"/*
    cp "$fewer"/* "$kept"
    echo "$target: $(find "$kept" -type f | wc -l) inputs kept"
}

# each ACTION ARGUMENT -- TARGET...
each() {
    local action=$1 argument=$2 target failed=0
    shift 2
    build_all "$@"
    for target; do
        "$action" "$target" $argument || failed=1
    done
    return "$failed"
}

mapfile -t targets < <(all_targets)
one_or_all() {
    if [[ -n ${1:-} ]]; then
        [[ " ${targets[*]} " == *" $1 "* ]] || die "no target '$1': there are ${targets[*]}"
        targets=("$1")
    fi
}

case ${1:-} in
short)
    one_or_all "${2:-}"
    each short "" "${targets[@]}"
    ;;
keep)
    one_or_all "${2:-}"
    each keep "" "${targets[@]}"
    ;;
replay)
    (($# > 2)) || die "replay TARGET FILE..."
    one_or_all "$2"
    build_all "$2"
    "$(program_of "$2")" "${@:3}"
    ;;
[1-9]*)
    [[ $1 =~ ^[0-9]+$ ]] || die "'$1' is not a number of seconds"
    one_or_all "${2:-}"
    each long "$1" "${targets[@]}"
    ;;
*) die "short, SECONDS [TARGET], replay TARGET FILE..., or keep [TARGET]" ;;
esac
