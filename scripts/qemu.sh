# What the scripts share that run the tests for other processors under qemu 7.2, in user mode. Sourced by them:
#
#   build_tests PROCESSOR [CMAKE_OPTION...]    into $BUILD_DIR/PROCESSOR, by the distribution's toolchains; sets `out` and `jobs`
#   must_name_tests PATTERN
#   leave_out PROCESSOR    says what emulation cannot carry; sets `exclude` for ctest, and GoogleTest's filter

cmake=${CMAKE:-cmake}
jobs=${JOBS:-$(nproc)}

build_tests() {
    local processor=$1 toolchain=$PWD/cmake/$1-linux-gnu.cmake
    shift
    out=${BUILD_DIR:-build}/$processor
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    # GoogleTest for that processor, from the distribution's sources.
    if [[ ! -d $out/gtest ]]; then
        "$cmake" -S /usr/src/googletest -B "$out/gtest-build" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release \
            -DCMAKE_INSTALL_PREFIX="$out/gtest" >/dev/null
        "$cmake" --build "$out/gtest-build" -j"$jobs" --target install >/dev/null
    fi
    RUSTC=/usr/bin/rustc "$cmake" -S . -B "$out" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release \
        -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_BUILD_TESTS=ON -DGTest_DIR="$out/gtest/lib/cmake/GTest" "$@" >/dev/null
    "$cmake" --build "$out" -j"$jobs"
}

# Whole tests: a part of a test's name, and why.
skipped=(
    'gdb|the debugger would see the emulator'
    'consumer|builds for this machine'
    'process_exec|the kernel cannot start programs for another processor'
    'process_dlopen|starts programs for another processor'
    'fault_kernel|is written for the registers of x86-64, and qemu has no ptrace'
    'process_fork|qemu ends, by an assertion of its own, when a child of fork starts a thread'
    'backtrace_stepped|only x86-64 has the trap flag by which it steps'
    'release_stepped|qemu has no ptrace (tests/gdb_stepped.sh looks at the same in another way)'
    'copystack_stepped|qemu has no ptrace'
    'dns_tick|measures how long the thread is stopped, which here the emulator does as well'
)
# And single tests of the others.
parts=(
    'CoCreate.OutOfMemory*|qemu does not keep RLIMIT_AS'
    'CoCreate.gets_memory_that_free_stacks_*|the same'
    'CoCreate.WorksAgainAfterMemoryCameBack|the same'
    'CoAllocShareStack.NoMemoryForTheStacksGivesNullAndTakesNone|the same'
    '*EachLookup.is_made_in_place_where_no_thread_can_be_had*|the same'
    'AddressSpace.*|the same, and qemu ends when it has no memory'
    'LibcoHooks.*|starts itself: a program for another processor'
    'LibcoFaults.*|the same'
    'AProgramWithoutCoroutines.*|the same'
    'Mutex.held_across_usleep_*|the same'
    'ChosenHooks.follow_the_environment_of_the_program|the same'
    'Messages.TheEnvironmentChoosesTheLevelByNumberOrWord|the same'
    'HooksOff.*|counts system calls by ptrace'
    'AddedDescriptors.*_where_rwf_nowait_is_not_known|qemu takes no seccomp filter'
    'Added*.of_nothing_*|qemu has no preadv2 and pwritev2 (docs/PORTING.md)'
    'AddedReadv.of_bad_arguments_*|the same'
    'AddedWritev.of_bad_arguments_*|the same'
    'Eventfd.keeps_its_counts|the same'
    'KnownNumbers.used_from_two_threads_loops_serve_both|the same: of two threads that read one pipe, one may stop'
    'EpollWait.blocks_as_before_unless_it_is_asked_for|qemu has no epoll_pwait2'
    'EpollWait.with_bad_arguments_*|the same'
    'Fcntl.passes_on_pointer_arguments_*|qemu has no F_SET_RW_HINT'
    'AddedAccept.of_bad_arguments_*|qemu drops flags that it does not know'
    'AddedDescriptors.cannot_be_made_of_bad_arguments|the same'
    'AddedRecvmmsg.of_bad_arguments_*|qemu does not look at the time'
    'AddedSendmmsg.sends_each_message_whole_on_a_stream|qemu goes on behind a message that went in part'
    'Getsockopt.writes_no_more_than_there_is_room_*|qemu writes all of it'
    'Select.takes_more_descriptors_than_FD_SETSIZE|qemu itself ends there'
    'ProcessCancel.ThreadsThatEndOnCoroutineStacksLeaveNothing|qemu keeps 19 KiB of each thread that was there, coroutines or not'
    'ProcessThreads.*LeaveNothing|the same'
    'ThreadExit.*LeaveNoDescriptorAndNoMemory|the same'
    'ThreadExit.*LeavesNothing|the same'
    'Gethostbyname.works_in_a_forked_child|qemu ends when a child of fork starts a thread'
    'Gethostbyname.of_an_unknown_host_sets_h_errno|the same'
    'Gethostbyname.asks_for_several_coroutines_at_once|the same'
    'Gethostbyname.lets_*|the same'
    '*EachLookup.goes_on_in_a_child_of_fork*|the same'
    '*EachLookup.leaves_nothing_behind_*|counts threads, of which qemu has one more'
    '*EachLookup.of_100_ms_*|measures the time'
    'HelperThreads.are_as_many_*|within a time, for which emulation is too slow'
    'FortyAtOnce.*|the same'
    'KnownNumbers.that_change_hands_during_*|the same'
    'ResetConnections.fail_in_mid_stream_*|the same'
    'ResetConnections.raise_sigpipe_*|the same'
    'APeerThatStopsReading.ends_a_write_*|the same'
)
# A PATTERN that names no test is a mistake.
must_name_tests() {
    if ctest --test-dir "$out" -N -R "$1" | grep -q '^Total Tests: 0$'; then
        echo "no test's name has '$1' in it" >&2
        exit 1
    fi
}

leave_out() {
    local processor=$1 line filter=-
    exclude=
    for line in "${skipped[@]}"; do
        echo "$processor: skipped: ${line%%|*}: ${line#*|}"
        exclude+=${exclude:+|}${line%%|*}
    done
    for line in "${parts[@]}"; do
        echo "$processor: skipped: ${line%%|*}: ${line#*|}"
        filter+=${line%%|*}:
    done
    export GTEST_FILTER=$filter
    echo "$processor: skipped $("$cmake" -E chdir "$out" ctest -N -R "$exclude" | sed -n 's/^Total Tests: //p') tests in all," \
        "and ${#parts[@]} kinds of parts of others"
}
