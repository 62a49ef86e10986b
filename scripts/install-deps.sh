#!/usr/bin/env bash
# Installs what the builds need and this machine lacks; asks nothing.
#
#   scripts/install-deps.sh build    what `make` needs: a Rust toolchain, a C and a C++ compiler
#   scripts/install-deps.sh run      and the load generator of `make run`
#   scripts/install-deps.sh test     and everything that `make test` uses
#   scripts/install-deps.sh bench    what `make` and `make bench` need
#
# Installs with apt-get, as root or through a sudo that asks for no password. Where it cannot, it
# names what is missing and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    printf 'install-deps: %s\n' "$*" >&2
    exit 1
}

missing=()

# need PACKAGE COMMAND...: the package is missing if one of its commands is.
need() {
    local package=$1 command
    shift
    for command in "$@"; do
        if ! command -v "$command" >/dev/null; then
            missing+=("$package")
            return
        fi
    done
}

# need_header PACKAGE HEADER
need_header() {
    if ! printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$2" |
        g++ -x c++ -E - >/dev/null 2>&1; then
        missing+=("$1")
    fi
}

check_packages() {
    missing=()
    need gcc gcc
    need g++ g++
    need make make
    case $1 in
    build) ;;
    run)
        need wrk wrk
        ;;
    test)
        need binutils readelf
        need cmake cmake ctest
        need ninja-build ninja
        need clang clang clang++
        need pkg-config pkg-config
        need strace strace
        need valgrind valgrind
        need iproute2 ss
        need_header libgtest-dev gtest/gtest.h
        need_header libgmock-dev gmock/gmock.h
        ;;
    bench)
        need valgrind valgrind
        need wrk wrk
        need linux-perf perf
        need_header libbenchmark-dev benchmark/benchmark.h
        need_header libboost-context-dev boost/context/fiber.hpp
        # The plots are made by the distribution's Python.
        /usr/bin/python3 -c 'import matplotlib' 2>/dev/null || missing+=(python3-matplotlib)
        ;;
    *) die "unknown argument '$1' (build, run, test or bench)" ;;
    esac
}

check_rust() {
    local cargo=${CARGO:-cargo} wanted found
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
    command -v "$cargo" >/dev/null || cargo=$HOME/.cargo/bin/cargo
    found=$("$cargo" --version 2>/dev/null | cut -d ' ' -f 2) ||
        die "Rust $wanted or later is needed and there is none: install it as https://rustup.rs says, then run this again."
    if [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) != "$wanted" ]]; then
        die "Rust $wanted or later is needed and this is $found: 'rustup update stable' brings it."
    fi
}

install_packages() {
    local as_root=() apt_options=(-qq -y --no-install-recommends)
    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]} (the names of Debian's packages); this system has no apt-get, please install them by its own means."
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null ||
            die "missing: ${missing[*]}; please run as root: apt-get install ${missing[*]}"
        as_root=(sudo -n)
    fi
    echo "install-deps: installing ${missing[*]}"
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    # The list of packages may be old or not there at all.
    "${as_root[@]}" apt-get install "${apt_options[@]}" "${missing[@]}" >/dev/null 2>&1 ||
        { "${as_root[@]}" apt-get update -qq &&
            "${as_root[@]}" apt-get install "${apt_options[@]}" "${missing[@]}" >/dev/null; } ||
        die "apt-get could not install ${missing[*]}; its message is above."
}

what=${1:-build}
check_packages "$what"
if ((${#missing[@]})); then
    install_packages
    check_packages "$what"
    ((${#missing[@]} == 0)) || die "still missing after the installation: ${missing[*]}"
fi
check_rust
echo "install-deps: all that '$what' needs is here"
