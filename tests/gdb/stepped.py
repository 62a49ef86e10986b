# Walks up after each instruction from resume_all to stepping_ends: each walk must end where a stack does, and those on the
# thread's own stack must reach resume_all. And whose stack the thread stands on counts as running: has a resumer, or another
# thread might release it.
import gdb

ENDS = ("main", "first_frame", "switch_on_service", "co_resume")

def walk():
    frame, names = gdb.newest_frame(), []
    while frame is not None:
        names.append(frame.name() or "?")
        if len(names) > 60:
            return names, "without an end"
        reason = frame.unwind_stop_reason()
        if reason > gdb.FRAME_UNWIND_OUTERMOST:
            return names, gdb.frame_stop_reason_string(reason)
        frame = frame.older()
    if not any(end in names[-1] for end in ENDS):
        return names, "ends in " + names[-1]
    return names, None

def offset(member):
    return int(gdb.parse_and_eval("(unsigned long) &((stCoRoutine_t *) 0)->" + member))

def word(address):
    return int.from_bytes(gdb.selected_inferior().read_memory(address, 8).tobytes(), "little")

def runs(sp):
    """Whether whose stack `sp` lies on runs; None: nobody's."""
    whose = [co for co in everyone if word(co + BOTTOM) <= sp <= word(co + BOTTOM) + word(co + SIZE)]
    return any(word(co + RESUMER) for co in whose) if whose else None

gdb.execute("break resume_all")
gdb.execute("continue")
RESUMER, BOTTOM, SIZE = offset("ctx.regs[1]"), offset("ctx.ss_sp"), offset("ctx.ss_size")
everyone = [int(gdb.parse_and_eval("everyone[%d]" % i)) for i in range(5)]
thread = int(gdb.parse_and_eval("$sp"))
steps = on_thread = on_coroutine = wrong = 0
names = []
while "stepping_ends" not in names[:1] and steps < 20000:
    gdb.execute("stepi", to_string=True)
    steps += 1
    sp = int(gdb.parse_and_eval("$sp"))
    names, fault = walk()
    # (Coroutines' stacks are mappings of their own, far away.)
    if abs(sp - thread) < 64 * 1024:
        on_thread += 1
        if fault is None and "resume_all" not in names and "stepping_ends" not in names:
            fault = "does not reach resume_all"
    running = runs(sp)
    on_coroutine += running is not None
    if running is False:
        fault = "stands on the stack of a coroutine that does not run"
    if fault is not None:
        wrong += 1
        print("wrong: at %#x: %s: %s" % (int(gdb.parse_and_eval("$pc")), " < ".join(names), fault))
print("stepped: %d steps, %d on the thread's stack, %d on coroutines', %d wrong" % (steps, on_thread, on_coroutine, wrong))
