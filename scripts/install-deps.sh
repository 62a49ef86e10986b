#!/usr/bin/env bash
# Installs what the builds need and this machine lacks; asks nothing.
#
#   scripts/install-deps.sh build    what `make` needs: a Rust toolchain, a C and a C++ compiler
#   scripts/install-deps.sh run      and the load generator of `make run`
#   scripts/install-deps.sh test     and everything that `make test` uses
#   scripts/install-deps.sh bench    what `make` and `make bench` need
#   scripts/install-deps.sh coverage  what `make coverage` needs beside what `make test` uses
#   scripts/install-deps.sh aarch64  what `make test-aarch64` uses beside that
#   scripts/install-deps.sh riscv64  what `make test-riscv64` uses beside that
#   scripts/install-deps.sh musl     what `make test-musl` uses
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

# need_library PACKAGE NAME: a library that the loader knows.
need_library() {
    local known
    known=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p)
    [[ $known == *"$2 "* ]] || missing+=("$1")
}

# need_module PACKAGE NAME: what pkg-config calls NAME, which the package has.
need_module() {
    pkg-config --exists "$2" 2>/dev/null || missing+=("$1")
}

# The client libraries that tests/clients runs side by side, their servers, and the distribution's own clients.
check_clients() {
    local PATH=$PATH:/usr/sbin:/sbin
    need util-linux setpriv
    need_module libhiredis-dev hiredis
    need redis-server redis-server
    need redis-tools redis-cli
    need_module libpq-dev libpq
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
    need postgresql-client psql
    need_module libmariadb-dev libmariadb
    need mariadb-server mariadbd mariadb-install-db
    need mariadb-client mariadb
    need_module libcurl4-openssl-dev libcurl
    need curl curl
    need nginx-light nginx
    need_module libssl-dev openssl
    need openssl openssl
    need_module libmemcached-dev libmemcached
    need memcached memcached
    need libmemcached-tools memccat memccp memcping
    need_library libjemalloc2 libjemalloc.so.2
    need_library libtcmalloc-minimal4 libtcmalloc_minimal.so.4
}

# What clang's -fsanitize links to: a package for each of its versions.
need_clang_sanitizers() {
    local version
    version=$(clang -dumpversion 2>/dev/null) || return 0 # clang itself comes first
    [[ -e $(clang -print-file-name=libclang_rt.tsan-"$(uname -m)".a) ]] || missing+=("libclang-rt-${version%%.*}-dev")
}

# What reads the compiler's profiles: of its LLVM version, or a later one.
check_coverage() {
    local rustc version tool
    rustc=$(PATH=$PATH:$HOME/.cargo/bin command -v rustc) || return 0 # check_rust says so
    version=$("$rustc" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for tool in "$("$rustc" --print sysroot)"/lib/rustlib/*/bin/llvm-cov /usr/lib/llvm-*/bin/llvm-cov; do
        if [[ -x $tool ]] && (($("$tool" --version | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p') >= version)); then
            return
        fi
    done
    missing+=("llvm-$version")
}

# A Rust toolchain of the distribution's own with the standard library for aarch64, cross compilers, an emulator.
check_aarch64() {
    local architectures
    architectures=$(dpkg --print-foreign-architectures 2>/dev/null) || die "'aarch64' works on Debian alone"
    if [[ " ${architectures//$'\n'/ } " != *" arm64 "* ]]; then
        [[ $(id -u) == 0 ]] || die "please run as root: dpkg --add-architecture arm64"
        dpkg --add-architecture arm64
    fi
    need rustc-web /usr/bin/rustc
    need cargo-web /usr/bin/cargo
    [[ -d /usr/lib/rustlib/x86_64-unknown-linux-gnu ]] || missing+=(libstd-rust-web-dev)
    [[ -d /usr/lib/rustlib/aarch64-unknown-linux-gnu ]] || missing+=(libstd-rust-web-dev:arm64)
    need gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
    need g++-aarch64-linux-gnu aarch64-linux-gnu-g++
    need qemu-user qemu-aarch64
    need gdb-multiarch gdb-multiarch
    # The sources of the standard library, which is compiled anew with checked branches.
    [[ -d /usr/lib/rustlib/src/rust/library ]] || missing+=(rust-web-src)
    [[ -e /usr/src/googletest/CMakeLists.txt ]] || missing+=(googletest)
    [[ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ]] || missing+=(libc6-dev-arm64-cross)
}

# Sources of the standard library with the compiler that they belong to: for machines that no package has it for.
check_std_sources() {
    need rustc-web /usr/bin/rustc
    need cargo-web /usr/bin/cargo
    [[ -d /usr/lib/rustlib/x86_64-unknown-linux-gnu ]] || missing+=(libstd-rust-web-dev)
    [[ -e /usr/lib/rustlib/src/rust/library/std/Cargo.toml ]] || missing+=(rust-web-src)
}

check_riscv64() {
    check_std_sources
    need gcc-riscv64-linux-gnu riscv64-linux-gnu-gcc
    need g++-riscv64-linux-gnu riscv64-linux-gnu-g++
    need qemu-user qemu-riscv64
    need gdb-multiarch gdb-multiarch
    [[ -e /usr/src/googletest/CMakeLists.txt ]] || missing+=(googletest)
    [[ -e /usr/riscv64-linux-gnu/lib/libc.so.6 ]] || missing+=(libc6-dev-riscv64-cross)
}

check_musl() {
    check_std_sources
    need musl-tools musl-gcc
    need binutils readelf
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
        need_clang_sanitizers
        need pkg-config pkg-config
        need strace strace
        need valgrind valgrind
        need gdb gdb
        need linux-perf perf
        PATH=$PATH:/usr/sbin:/sbin need iproute2 ss ip
        PATH=$PATH:/usr/sbin:/sbin need nftables nft
        need_header libgtest-dev gtest/gtest.h
        need_header libgmock-dev gmock/gmock.h
        check_clients
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
    coverage)
        check_coverage
        ;;
    aarch64)
        check_aarch64
        ;;
    riscv64)
        check_riscv64
        ;;
    musl)
        check_musl
        ;;
    *) die "unknown argument '$1' (build, run, test, bench, coverage, aarch64, riscv64 or musl)" ;;
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

# Debian starts a server that it installs, unless this program of the administrator's says no (status 101). A machine that
# has one keeps it, and it must say no; otherwise there is one for the time of the installation.
policy=/usr/sbin/policy-rc.d
forbid_services() {
    local status=0
    if [[ -e $policy ]]; then
        "$policy" redis-server start >/dev/null 2>&1 || status=$?
        ((status == 101)) ||
            die "the servers that the tests use would be started by their installation, since $policy allows it; please install by your own means: ${missing[*]}"
        return
    fi
    trap allow_services EXIT
    trap 'exit 1' INT TERM
    remove_policy=("$@" rm -f "$policy")
    printf '#!/bin/sh\nexit 101\n' | "$@" tee "$policy" >/dev/null
    "$@" chmod 755 "$policy"
}

remove_policy=()
allow_services() {
    if ((${#remove_policy[@]})); then
        "${remove_policy[@]}"
        remove_policy=()
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
    if [[ $what == test ]]; then
        forbid_services "${as_root[@]}"
    fi
    # The list of packages may be old or not there at all.
    "${as_root[@]}" apt-get install "${apt_options[@]}" "${missing[@]}" >/dev/null 2>&1 ||
        { "${as_root[@]}" apt-get update -qq &&
            "${as_root[@]}" apt-get install "${apt_options[@]}" "${missing[@]}" >/dev/null; } ||
        die "apt-get could not install ${missing[*]}; its message is above."
    allow_services
}

what=${1:-build}
check_packages "$what"
# (Twice: what one package needs beside it may show only when it is there.)
for _ in 1 2; do
    if ((${#missing[@]})); then
        install_packages
        check_packages "$what"
    fi
done
((${#missing[@]} == 0)) || die "still missing after the installation: ${missing[*]}"
check_rust
echo "install-deps: all that '$what' needs is here"
