#!/usr/bin/env bash
# Runs the C++ tests, linked to the static library, under a tool that watches memory or threads. Any report fails.
#
#   scripts/watch-tests.sh TOOL [PATTERN]    PATTERN: an extended regular expression for tests' names, all by default
#
#   memcheck    valgrind: every access, and lost memory; also in the children that a test forks
#   helgrind    valgrind: threads and locks
#   address     gcc's AddressSanitizer with LeakSanitizer, and UndefinedBehaviorSanitizer
#   thread      gcc's ThreadSanitizer
#
# One line a test. What the tool says of those that fail is in $BUILD_DIR/watch/TOOL.
set -uo pipefail
cd "$(dirname "$0")/.."

build=${BUILD_DIR:-build}
jobs=${JOBS:-$(nproc)}
cargo=${CARGO:-cargo}
cmake=${CMAKE:-cmake}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tool=${1:?memcheck, helgrind, address or thread}
pattern=${2:-}
logs=$PWD/$build/watch/$tool

# Whole tests that a tool cannot run as they are meant, and parts of tests as GoogleTest's filter names them: "TEST
# FILTER  WHY". Of all tools, of valgrind's, and of each.
left_out() {
    cat <<'END'
test_hook_added_off * counts system calls by ptrace, the tool's own among them
test_hook_allocator * has a malloc of its own, which the tool replaces
test_copystack_stepped * would step through the tool by ptrace
test_release_stepped * would step through the tool by ptrace
test_fault_kernel * changes system calls by ptrace, the tool's own among them
test_fault_memory * has a malloc of its own, which the tool replaces
test_fault_network * is about a kernel's time-outs, for which a tool is too slow
test_fault_peer * kills children of a process with threads, and is too slow
test_fault_overflow * is about SIGSEGV, which the tool takes for itself
test_stack_mappings * counts the mappings of the process, the tool's own among them
test_dns_tick * measures times, for which a tool is too slow
test_hook_connect HookedConnect.reports_the_error_of_the_real_call passes bad pointers on purpose
test_dns_lookups *leaves_nothing_behind_* measures memory, and the tool keeps for a while what was freed
END
    case $tool in
    memcheck | helgrind)
        cat <<'END'
test_backtrace_stepped * steps by the trap flag, which valgrind does not heed
test_copystack CopyStack.SavedBytesAreFreedWithTheirCoroutine measures memory: valgrind keeps for a while what was freed
test_dns_lookups HelperThreads.are_as_many_*:*goes_on_in_a_child_of_fork*:*no_thread_can_be_had* under valgrind threads take turns, and too long for it
test_exceptions_in_flight Exceptions.AResetInsideCatchStartsWithoutAnException abandons an exception, which nobody frees
test_hook_added_accept *bad_arguments* passes bad pointers on purpose
test_hook_added_accept AddedAccept.without_a_free_number_* valgrind has descriptors of its own
test_hook_added_descriptors AddedDescriptors.cannot_be_made_of_bad_arguments valgrind has descriptors of its own
test_hook_added_descriptors Ioctl.passes_on_other_requests_and_errors:Getsockopt.*passes_on_errors passes bad pointers on purpose
test_hook_added_descriptors Eventfd.keeps_its_counts passes a bad pointer on purpose
test_fault_descriptors * valgrind has descriptors of its own
test_process_fork *WhileOtherThreadsWork* forks among busy threads: a child of valgrind's may wait for one that stayed behind
test_process_fork *InterruptAllocations a storm of signals, for which valgrind is too slow
test_process_fork *ThreadsThatItDoesNotHave loses in a child what only other threads' stacks hold
test_thread_exit_running *AChildOfFork* the same
test_process_stacks *MayJumpBack* faults on purpose
test_process_signal_stack *OfFaults* faults on purpose
test_hook_added_messages *bad_arguments* passes bad pointers on purpose
test_hook_added_sendfile *bad_arguments* passes bad pointers on purpose
test_hook_added_vectors *bad_arguments* passes bad pointers on purpose
test_hook_added_waits FortyAtOnce.* within a second: too fast for valgrind
test_hook_choice LibcoHooks.*:Mutex.* runs itself by another name, as which valgrind runs nothing
test_hook_descriptors Fcntl.passes_on_pointer_arguments_* valgrind does not know those commands
test_hook_descriptors Setsockopt.with_a_bad_pointer_reports_efault passes bad pointers on purpose
test_hook_epoll EpollWait.blocks_as_before_*:EpollWait.with_bad_arguments_* valgrind does not know epoll_pwait2
test_hook_added_numbers KnownNumbers.kept_open_by_a_child_* within three seconds: too fast for valgrind
test_inspect_coroutines Info.TheMarkOfAStack* valgrind puts more on a stack
test_inspect_counters *AChildOfFork* a child of several threads, whose own memory is nobody's there
test_loop_strain CoCreate.gets_memory_that_* limits its address space, of which valgrind needs more
test_process_exec *NoDescriptorOfTheLibrary* valgrind has descriptors of its own
test_hook_signals SignalMask.that_lets_nothing_* a call with a mask that a signal comes just before fails with EFAULT: valgrind begins it again with its own copy of the mask, and refuses that
test_process_signals *ACloseInAHandler* wants more signals in a second than valgrind delivers
test_hook_select Select.of_a_coroutine_that_is_released_* abandons frames whose vectors nobody frees
test_process_signals *MayJumpBack*:*WhileTheThreadForks* jumps out of a handler, and valgrind takes the frames that remain for blank
test_process_threads *LeaveNothing measures memory
test_registers FloatingPoint.ANewCoroutine* valgrind does not keep the x87's control word
test_release_waiting * abandons frames whose vectors nobody frees
test_security_fault_place * is about SIGSEGV, which the tool takes for itself
test_specifics Specifics.TheirMemoryIsFreed* measures memory
test_thread_exit ThreadExit.TwoThousandThreads* measures memory
test_hook_waiting_strain * calls epoll_pwait2, which valgrind does not know
test_hook_select *bad_argument*:*absurd_number* passes bad pointers on purpose
test_hook_time ClockNanosleep.with_any_clock_*:*bad_arguments* passes bad pointers on purpose
test_inspect_messages *TheEnvironment* runs itself by another name, as which valgrind runs nothing
test_hook_ppoll Ppoll.with_bad_arguments_* valgrind reads all of two thousand million entries
END
        ;;&
    helgrind)
        cat <<'END'
test_calls_refused *LoopOfAnotherThread hands over by an atomic, in which helgrind sees no order
test_copystack *MayBeReleasedByAnotherThread hands over by a pipe, in which helgrind sees no order
test_copystack_threads *UnderStrain hands stacks over by an atomic of the library, which helgrind takes for a plain word
test_create *NoMemoryForTheStacks* limits its address space, of which helgrind needs more
test_dns_lookups *takes_less_than_a_second* measures times, for which helgrind is too slow
test_hook_added_numbers KnownNumbers.closed_just_when_* two hundred rounds within twenty seconds: too fast for helgrind
test_hook_many * ten thousand connections within a hundred seconds: too fast for helgrind
test_inspect_coroutines *AnotherThreads*:*OverAllThreads*:*GoesOnWhile* looks at other threads' coroutines as they run, on purpose
test_inspect_released *IsNotNamed:*NorOne* looks at other threads' coroutines as they wait, on purpose
test_inspect_counters *TheSumIsRead*:*AChildOfFork* looks at what other threads are counting, on purpose
test_inspect_messages *AWordAbout* misuses other threads' coroutines
test_loop_registrations *closed_by_one_thread_* hands over by an atomic, in which helgrind sees no order
test_loop_strain CoRelease.*_from_another_thread_* hands over by an atomic, in which helgrind sees no order
test_loop_timeouts *of_co_poll_on_a_descriptor_are_never_early two thousand waits at once within twenty seconds: too fast for helgrind
test_thread_exit ThreadExit.*Leave* thousands of threads: too slow
test_thread_exit_running *ByAnotherThread* hands over by an atomic, in which helgrind sees no order
test_process_cancel *LeaveNothing five hundred threads within a minute: too fast for helgrind
test_process_exit *PthreadExitOfTheMainThread* ends the process while another thread's end holds a lock, which helgrind reports
test_process_threads *ThatEndTouchNoCoroutine*:*ThatReleaseACoroutineJust* hands over by an atomic, in which helgrind sees no order; three hundred rounds within a minute
test_release CoRelease.WorksFromAnotherThread* hands over by a pipe, in which helgrind sees no order
test_resume_yield CoResume.OneThatNeverRanBelongs* hands over by a pipe, in which helgrind sees no order
END
        ;;
    address | thread)
        cat <<'END'
test_copystack CopyStack.CopiesTakeTheLiveBytesOnly:CopyStack.SavedBytesAreFreedWithTheirCoroutine measures memory
test_create Create.*Memory*:Create.*memory* limits its address space, of which the sanitizer needs terabytes
test_hook_env EnvMemory.is_freed_with_the_coroutine measures memory
test_security_reuse Reuse.of_a_save_buffer_* measures a frame, which is larger with the sanitizer
test_hook_ppoll Ppoll.with_bad_arguments_* bad pointers, of which the sanitizer's own ppoll complains
END
        ;;&
    address)
        cat <<'END'
test_backtrace Backtrace.Ends*:Backtrace.OfOne* counts frames of backtrace(), to which the sanitizer adds its own
test_hook_added_descriptors AddedDescriptors.cannot_be_made_of_bad_arguments leaves no free number, without which UndefinedBehaviorSanitizer takes memory for unreadable
test_process_cancel * AddressSanitizer takes frames that pthread_cancel took away for frames that are there, on a thread's own stack as well
test_process_fork *WhileOtherThreadsWork* a child of gcc 12's sanitizer waits for locks of its malloc that threads of the parent held
test_process_stacks *MayJumpBack* faults on purpose
test_process_signal_stack *OfFaults* is about the library's signal stack, and the sanitizer has a smaller one
test_process_threads *LeaveNothing measures memory
test_specifics Specifics.TheirMemoryIsFreed* measures memory
test_thread_exit ThreadExit.*Leave*Nothing:ThreadExit.TwoThousandThreads* measures memory
test_hook_select Select.* abandons frames whose vectors nobody frees
END
        ;;
    thread)
        cat <<'END'
test_backtrace Backtrace.Ends*:Backtrace.OfOne* counts frames of backtrace(), to which the sanitizer adds its own
test_copystack_stress * more coroutines than ThreadSanitizer can tell apart, 8128
test_resume_yield CoResume.NestsTenThousandDeep the same
test_backtrace_stepped * its handler runs in the middle of switches, where the tool is between two fibers
test_create CoCreate.OutOfMemory* limits its address space, of which the sanitizer needs terabytes
test_dns_lookups HelperThreads.are_as_many_*:*no_thread_can_be_had* too slow for 40 at once; limits its address space
test_dns_lookups *goes_on_in_a_child_of_fork* ThreadSanitizer does not follow a child of several threads; coroutines count as such
test_fork * ThreadSanitizer does not follow a child of several threads; coroutines count as such
test_hook_added_descriptors Fclose.of_streams_without_a_number_* the sanitizer's fclose sets errno
test_hook_added_numbers KnownNumbers.used_from_two_threads_loops_serve_both:KnownNumbers.closed_just_when_* closes on purpose what another thread reads
test_hook_many * more coroutines than ThreadSanitizer can tell apart
test_loop_timeouts TimeOuts.fire_in_the_order_*:TimeOuts.all_fire_when_ten_thousand_* more coroutines than ThreadSanitizer can tell apart
test_loop_eventloop *sleeps_without_a_system_call*:*storm_of_signals the loop wakes fifty times a second, for signals that come late
test_process_threads *LeaveNothing:*SomebodyElses* within a time, for which the sanitizer is too slow
test_stack_memory *GoesBackBeforeALongSleep* measures memory
test_loop_waits Waits.of_many_descriptors_* within a time, for which the sanitizer is too slow
test_process_cancel * gcc 12's ThreadSanitizer ends a program whose thread ends in a fiber
test_thread_exit_running * the same
test_inspect_messages *NearlyFull* a stack of one page, too little for the loader to find the sanitizer's functions on
test_process_dlopen *ItsOwnCopy* two copies of the library tell ThreadSanitizer of fibers, each without the other
test_process_exec *ADaemon* ThreadSanitizer does not follow a child of several threads; coroutines count as such
test_process_exit *PthreadExit* gcc 12's ThreadSanitizer ends a program that calls pthread_exit in a fiber
test_process_fork * ThreadSanitizer does not follow a child of several threads; coroutines count as such
END
        ;;
    esac
}

case $tool in
memcheck | helgrind)
    programs=$build/cpp_tests
    command=(valgrind --tool="$tool" --error-exitcode=99 --suppressions=tests/valgrind.supp --num-callers=100)
    if [[ $tool == memcheck ]]; then
        command+=(--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite)
    fi
    ;;
address | thread)
    programs=$build/watch/$tool-build/cpp_tests
    command=()
    flags="-g -fno-omit-frame-pointer -fsanitize=$tool"
    if [[ $tool == address ]]; then flags+=,undefined; fi
    CARGO=$cargo "$cmake" -S . -B "$build/watch/$tool-build" -DCMAKE_BUILD_TYPE=Release -DCOLIB_BUILD_TESTS=ON \
        -DCOLIB_BUILD_EXAMPLES=OFF -DCOLIB_CARGO_TARGET_DIR="$target" -DCMAKE_CXX_FLAGS="$flags" >/dev/null || exit
    mapfile -t goals < <(cd cpp_tests && printf '%s\n' test_*.cpp | sed 's/\.cpp$//' | grep -E "${pattern:-.}" | sed 's/$/_static/')
    "$cmake" --build "$build/watch/$tool-build" -j"$jobs" --target "${goals[@]}" >"$build/watch/$tool-build/log" 2>&1 ||
        { tail -n 20 "$build/watch/$tool-build/log"; exit 1; }
    export ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=1
    export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    # (Children of tests end while their threads are there.)
    export TSAN_OPTIONS=die_after_fork=0:report_thread_leaks=0:suppressions=$PWD/tests/thread.supp
    ;;
*)
    echo "watch-tests.sh: no tool '$tool': memcheck, helgrind, address or thread" >&2
    exit 2
    ;;
esac

run_one() {
    local program=$1 filter=$2 name log start=$SECONDS status=0 reports=0 command=("${command[@]}")
    name=$(basename "$program" _static)
    log=$logs/$name
    if [[ ${command[0]:-} == valgrind ]]; then command+=(--log-file="$log.%p.log"); fi
    GTEST_FILTER="-$filter" timeout 1200 "${command[@]}" "$program" >"$log.out" 2>&1 || status=$?
    reports=$(cat "$log".* | grep -cE 'ERROR SUMMARY: [1-9]|(Address|Thread|Leak)Sanitizer: |runtime error: ')
    if ((status == 0 && reports == 0)); then
        rm -f "$log".*
        printf 'ok     %4d s  %s%s\n' $((SECONDS - start)) "$name" "${filter:+, without $filter}"
    else
        printf 'FAILED %4d s  %s: status %d, %d reports: %s\n' $((SECONDS - start)) "$name" "$status" "$reports" "$log.*"
    fi
}

shopt -s nullglob
rm -rf "$logs"
mkdir -p "$logs"
running=0
for program in "$programs"/test_*_static; do
    name=$(basename "$program" _static)
    if [[ ! $name =~ $pattern ]]; then continue; fi
    filter=$(left_out | awk -v name="$name" '$1 == name { print $2 }' | paste -sd :)
    if [[ $filter == '*' ]]; then
        printf 'skipped         %s: %s\n' "$name" "$(left_out | awk -v name="$name" '$1 == name { $1 = $2 = ""; print substr($0, 3) }')"
        continue
    fi
    if ((running == jobs)); then
        wait -n
        ((running--))
    fi
    run_one "$program" "$filter" &
    ((running++))
done > >(tee "$logs/summary")
wait
sleep 0.2 # for tee
count() { grep -c "^$1" "$logs/summary"; }
echo "$tool: $(count ok) passed, $(count FAILED) failed, $(count skipped) skipped"
(($(count FAILED) == 0 && $(count ok) > 0))
