# A program for another processor that qemu runs and shows to gdb. Sourced by tests/gdb_aarch64.sh and tests/gdb_stepped.sh. Needs
# gdb-multiarch.
#
#   emulated PROCESSOR PROGRAM LIBRARIES GDB_OPTION...    PROGRAM's output goes to PROGRAM.out; sets `said` (gdb's words), and
#                                                         `status`

emulated() {
    local processor=$1 program=$2 libraries=$3 root=/usr/$1-linux-gnu qemu i
    local socket=$PWD/$program.socket
    shift 3
    "qemu-$processor" -g "$socket" -L "$root" -E "LD_LIBRARY_PATH=$root/lib:$libraries" "./$program" >"$program.out" 2>&1 &
    qemu=$!
    for ((i = 0; i < 100; i++)); do
        [[ -S $socket ]] && break
        sleep 0.1
    done
    status=0
    said=$(timeout 300 gdb-multiarch -nx -batch -iex 'set auto-load safe-path /nowhere' -iex 'set width 0' \
        -iex 'set debuginfod enabled off' -iex "set sysroot $root" -iex "set solib-search-path $libraries:$root/lib" \
        -ex "target remote $socket" "$@" "./$program" 2>&1 </dev/null) || status=$?
    kill "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
}
