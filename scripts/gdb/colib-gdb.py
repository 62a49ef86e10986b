"""Coroutines of colib in gdb: on a live process and on a core file.

    info coroutines [-STATE ...] [-thread N] [-all]
    coroutine ID [bt [ARGUMENTS] | frame LEVEL [COMMAND] | select]
    coroutine apply all [-all] bt [ARGUMENTS]
    coroutine off
    coroutine gcore [FILE]

Reads the library's table colib_debug_layout (src/routine/debug.rs); needs no debug information of the library,
gdb 9 or later with Python 3. Comes with the library: see docs/DEBUGGING.md. All names begin with Colib, since gdb
runs its scripts in one namespace.
"""

import contextlib
import os
import re
import struct
import subprocess
import tempfile
import time

import gdb
import gdb.unwinder


class ColibMemory:
    """The process or core, as bytes."""

    SECTIONS = (".data.rel.ro", ".data", ".rodata")

    def __init__(self):
        self.inferior = gdb.selected_inferior()
        if self.inferior.pid == 0:
            raise gdb.GdbError("colib: no process: start the program, attach to it, or load a core file.")
        self.files = gdb.execute("info files", to_string=True)
        core = re.search(r"^Local core dump file:\s*`(.*)', file type", self.files, re.M)
        self.core = core.group(1) if core else None
        self.native = "Using the running image of" in self.files

    def read(self, address, size):
        try:
            return bytes(self.inferior.read_memory(address, size))
        except (gdb.MemoryError, OverflowError):
            why = "the core file does not have it, or " if self.core else ""
            raise gdb.GdbError("colib: cannot read %d bytes at %#x: %sa pointer is damaged." % (size, address, why))

    def number(self, address, size=8):
        return int.from_bytes(self.read(address, size), "little")

    def search(self, pattern):
        """Where the pattern lies in the data of the program and its libraries."""
        for low, high, name in re.findall(r"^\s*(0x\w+) - (0x\w+) is (\S+)", self.files, re.M):
            at, high = int(low, 16), int(high, 16)
            while name in self.SECTIONS and at < high:
                try:
                    found = self.inferior.search_memory(at, high - at, pattern)
                except gdb.error:
                    break
                if found is None:
                    break
                yield int(found)
                at = int(found) + 1


class ColibX86:
    """x86-64: src/arch/x86_64.rs."""

    SP, PC = "rsp", "rip"
    # What a suspended context has from its stack pointer on.
    SAVED = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rip")
    THREAD = ("$fs_base",)

    @staticmethod
    def slot_offset(memory, code_at):
        code = memory.read(code_at, 7)
        if code[:3] == b"\x48\x8b\x05":  # mov rax, [rip + n]
            return memory.number(code_at + 7 + struct.unpack("<i", code[3:])[0])
        if code[:3] == b"\x48\xc7\xc0":  # mov rax, n
            return struct.unpack("<i", code[3:])[0] & (1 << 64) - 1
        return None

    @staticmethod
    def go_on_at(saved):
        return saved


class ColibAarch64:
    """aarch64: src/arch/aarch64.rs."""

    SP, PC = "sp", "pc"
    SAVED = tuple("x%d" % i for i in range(19, 29)) + tuple("v%d" % i for i in range(8, 16)) + ("x29", "pc")
    # As gdb's own servers and as qemu call it.
    THREAD = ("$tpidr", "$TPIDR_EL0")

    @staticmethod
    def slot_offset(memory, code_at):
        first, second = struct.unpack("<II", memory.read(code_at, 8))
        if first & 0x9F00001F == 0x90000000 and second & 0xFFC003FF == 0xF9400000:  # adrp x0, page; ldr x0, [x0, n]
            pages = (first >> 5 & 0x7FFFF) << 2 | first >> 29 & 3
            pages -= (pages & 1 << 20) << 1
            return memory.number((code_at & ~0xFFF) + (pages << 12) + (second >> 10 & 0xFFF) * 8)
        if first & 0xFFE0001F == 0xD2A00000 and second & 0xFFE0001F == 0xF2800000:  # movz x0, n, lsl 16; movk x0, m
            return (first >> 5 & 0xFFFF) << 16 | second >> 5 & 0xFFFF
        return None

    @staticmethod
    def go_on_at(saved):
        # Without a signature: nothing else is in these bits of a program's address.
        return saved & (1 << 48) - 1


def colib_machine():
    """What depends on the processor."""
    name = gdb.selected_inferior().architecture().name()
    machine = {"i386:x86-64": ColibX86, "aarch64": ColibAarch64}.get(name)
    if machine is None:
        raise gdb.GdbError("colib: this script does not know the processor %s." % name)
    return machine


class ColibLayout:
    """The library's table: where things are."""

    VERSION = 1
    MAGIC = b"colib-gdb-layout"
    HEADER = "<16sIIQQQQ"
    FIELDS = """
        list_next chunk_size chunk_link chunk_fresh chunk_first
        env_link env_current env_reactor env_main reactor_tick
        co_size co_env co_routine co_arg co_sp co_resumer co_started co_ended co_is_main co_on_copy_stack
        co_pending co_laid_down co_stack co_saved_size co_saved
        wait_state wait_kind wait_expires wait_node wait_reactor wait_more wait_count wait_since
        node_size node_co node_fd node_events
        stack_occupant stack_size stack_tag stack_end stack_colours
        sp_at_end pending_released
    """

    def __init__(self, memory):
        at = self.find(memory)
        fields = self.FIELDS.split()
        head = memory.read(at, struct.calcsize(self.HEADER))
        _, version, count, _, self.chunks, self.envs, self.slot_code = struct.unpack(self.HEADER, head)
        if version != self.VERSION or count != len(fields):
            raise gdb.GdbError(
                "colib: the program's library has layout version %d with %d numbers, this script reads version %d with "
                "%d: use the script that came with that library." % (version, count, self.VERSION, len(fields)))
        numbers = struct.unpack("<%dI" % count, memory.read(at + len(head), 4 * count))
        self.__dict__.update(zip(fields, numbers))
        # From a thread's pointer to its environment's address: in instructions, as the linker left them.
        self.slot = colib_machine().slot_offset(memory, self.slot_code)

    def find(self, memory):
        candidates = []
        with contextlib.suppress(gdb.error):
            candidates.append(int(gdb.parse_and_eval("(unsigned long) &colib_debug_layout")))
        for at in candidates:
            if memory.read(at, 16) == self.MAGIC:
                return at
        for at in memory.search(self.MAGIC):
            # A copy of the table, in a buffer say, does not point at itself.
            if at % 8 == 0 and memory.number(at + 24) == at:
                return at
        raise gdb.GdbError(
            "colib: no colib in this process (or not loaded yet, or one older than the table that this script reads).")


class ColibCoroutine:
    """One control block, as it is now."""

    KINDS = ("time", "descriptor", "descriptors", "condition", "job")
    EVENTS = ((1, "in"), (2, "pri"), (4, "out"), (8, "err"), (16, "hup"), (0x2000, "rdhup"))
    NEVER = (1 << 64) - 1

    def __init__(self, world, address, block):
        self.world, self.address, self.block = world, address, block
        layout = self.layout = world.layout
        self.env = self.word(layout.co_env)
        self.sp = self.word(layout.co_sp)
        self.resumer = self.word(layout.co_resumer)
        self.routine = self.word(layout.co_routine)
        self.stack = self.word(layout.co_stack)
        self.on_copy_stack = block[layout.co_on_copy_stack] != 0
        self.is_main = block[layout.co_is_main] != 0
        self.saved_size = self.number("<I", layout.co_saved_size)
        self.state = self.find_state()
        self.id = None

    def number(self, form, offset):
        return struct.unpack_from(form, self.block, offset)[0]

    def word(self, offset):
        return self.number("<Q", offset)

    def find_state(self):
        layout, block = self.layout, self.block
        if block[layout.co_pending] & layout.pending_released:
            return "released"
        if self.world.current.get(self.env) == self.address:
            return "running"
        if self.is_main or self.resumer:
            return "resuming"
        if block[layout.co_ended]:
            return "ended"
        if not block[layout.co_started]:
            return "new"
        return ("suspended", "waiting", "ready")[min(block[layout.wait_state], 2)]

    def name(self):
        return "main" if self.is_main else self.world.symbol(self.routine)

    def waits_for(self):
        if self.state != "waiting":
            return ""
        layout = self.layout
        kind = self.KINDS[min(self.block[layout.wait_kind], len(self.KINDS) - 1)]
        more = self.word(layout.wait_more)
        if kind == "time":
            what = "time"
        elif kind == "descriptor":
            what = self.node(self.block[layout.wait_node:layout.wait_node + layout.node_size])
        elif kind == "descriptors":
            what = self.nodes(more, self.number("<I", layout.wait_count))
        elif kind == "condition":
            what = "condition %#x" % more
        else:
            what = "a call on a helper thread"
        return what + self.times()

    def node(self, node):
        fd, = struct.unpack_from("<i", node, self.layout.node_fd)
        events, = struct.unpack_from("<H", node, self.layout.node_events)
        return "fd %d (%s)" % (fd, " ".join(name for bit, name in self.EVENTS if events & bit) or "errors")

    def nodes(self, at, count, shown=4):
        size = self.layout.node_size
        texts = []
        for i in range(min(count, shown)):
            node = self.world.memory.read(at + i * size, size)
            if struct.unpack_from("<Q", node, self.layout.node_co)[0]:
                texts.append(self.node(node))
        if count > shown:
            texts.append("%d more" % (count - shown))
        return ", ".join(texts)

    def times(self):
        layout = self.layout
        now = self.world.now(self.word(layout.wait_reactor))
        if now is None:
            return ""
        # 32 bits of a tick; the loop's clock may be one round behind.
        waited = now - self.number("<I", layout.wait_since) & 0xFFFFFFFF
        text = ", for " + self.seconds(waited if waited < 1 << 31 else 0)
        expires = self.word(layout.wait_expires)
        if expires == self.NEVER:
            return text
        return text + (", %s left" % self.seconds(expires - now) if expires > now else ", due")

    @staticmethod
    def seconds(ms):
        return "%d ms" % ms if ms < 1000 else "%.1f s" % (ms / 1000)

    def stack_record(self):
        """Its stack: (record's occupant, size, end, where routines start)."""
        layout = self.layout
        record = self.world.memory.read(self.stack, 32)
        end, = struct.unpack_from("<Q", record, layout.stack_end)
        size, tag = (struct.unpack_from("<I", record, at)[0] for at in (layout.stack_size, layout.stack_tag))
        colour = 0 if self.on_copy_stack else tag & (layout.stack_colours - 1)
        return struct.unpack_from("<Q", record, layout.stack_occupant)[0], size, end, end - 64 * colour

    def has_frames(self):
        """Suspended in the middle of its routine."""
        if self.state in ("new", "ended", "running"):
            return False
        return self.sp not in (0, self.layout.sp_at_end)

    def is_copied_out(self):
        if not self.on_copy_stack or not self.has_frames() or self.address == ColibCore.in_place:
            return False
        return self.stack_record()[0] != self.address

    def stack_used(self):
        if self.is_main:
            return ""
        occupant, size, _, start = self.stack_record()
        used = 0
        if self.state == "running":
            sp = self.world.stack_pointer(self.env)
            used = start - sp if sp and 0 <= start - sp <= size else None
        elif self.has_frames():
            used = self.saved_size if self.on_copy_stack and occupant != self.address else start - self.sp
        text = "%s of %s" % ("?" if used is None else self.bytes(used), self.bytes(size))
        return text + (", copied out" if self.is_copied_out() else ", copy stack" if self.on_copy_stack else "")

    @staticmethod
    def bytes(count):
        return "%d" % count if count < 10240 else "%dK" % (count // 1024)


class ColibWorld:
    """All coroutines of the selected process, at this stop."""

    MOST_LINKS = 10000000

    def __init__(self):
        self.memory = ColibMemory()
        self.layout = ColibLayout(self.memory)
        layout, number = self.layout, self.memory.number
        self.symbols, self.ticks = {}, {}
        self.clock = time.clock_gettime(time.CLOCK_MONOTONIC) * 1000 if self.memory.native else 0
        self.envs = [link - layout.env_link for link in self.ring(layout.envs)]
        self.current = {env: number(env + layout.env_current) for env in self.envs}
        self.threads = self.find_threads()
        self.coroutines = list(self.walk())
        for i, co in enumerate(self.coroutines, 1):
            co.id = i

    def ring(self, head):
        at = self.memory.number(head + self.layout.list_next)
        for _ in range(self.MOST_LINKS):
            if at in (0, head):
                return
            yield at
            at = self.memory.number(at + self.layout.list_next)
        raise gdb.GdbError("colib: the list at %#x has no end: the library's memory is damaged." % head)

    def walk(self):
        layout, read = self.layout, self.memory.read
        chunks = [link - layout.chunk_link for link in self.ring(layout.chunks)]
        free = set(chunks) | {0}
        for chunk in chunks:
            fresh = self.memory.number(chunk + layout.chunk_fresh, 4)
            objects = read(chunk, min(fresh, layout.chunk_size))
            for at in range(layout.chunk_first, len(objects) - layout.co_size + 1, layout.co_size):
                env, = struct.unpack_from("<Q", objects, at + layout.co_env)
                # A free one has null there or the address of another one; a released one may be kept for the next.
                if env & -layout.chunk_size in free or objects[at + layout.co_laid_down]:
                    continue
                yield ColibCoroutine(self, chunk + at, objects[at:at + layout.co_size])

    def find_threads(self):
        """From environments to gdb's threads, with their stack pointers."""
        found = {}
        if self.layout.slot is None:
            return found
        with ColibPlace():
            for thread in self.memory.inferior.threads():
                if not thread.is_valid() or thread.is_running():
                    continue
                thread.switch()
                with contextlib.suppress(gdb.error, gdb.GdbError):
                    base = self.thread_pointer()
                    env = self.memory.number(base + self.layout.slot & (1 << 64) - 1) if base else 0
                    if env in self.current:
                        found[env] = (thread, int(gdb.parse_and_eval("(unsigned long) $sp")))
        return found

    @staticmethod
    def thread_pointer():
        for name in colib_machine().THREAD:
            value = gdb.parse_and_eval(name)
            if value.type.code != gdb.TYPE_CODE_VOID:
                return int(value.cast(gdb.lookup_type("unsigned long")))
        return 0

    def thread(self, env):
        return self.threads.get(env, (None, None))[0]

    def stack_pointer(self, env):
        return self.threads.get(env, (None, None))[1]

    def thread_name(self, env):
        thread = self.thread(env)
        return str(thread.num) if thread else "?" if env in self.current else "ended"

    def now(self, reactor):
        """The tick: by the clock of a live process here, else the last one that the loop has seen."""
        if not reactor:
            return None
        if reactor not in self.ticks:
            self.ticks[reactor] = max(self.memory.number(reactor + self.layout.reactor_tick), int(self.clock))
        return self.ticks[reactor]

    def symbol(self, address):
        if address not in self.symbols:
            text = gdb.execute("info symbol %#x" % address, to_string=True)
            name = re.match(r"(.*?)(?: \+ \d+)? in section ", text)
            self.symbols[address] = name.group(1) if name else "%#x" % address
        return self.symbols[address]

    def at(self, address):
        """The coroutine at an address, one that is in use."""
        for co in self.coroutines:
            if co.address == address:
                return co
        for env in self.envs:
            if address == env + self.layout.env_main:
                return ColibCoroutine(self, address, self.memory.read(address, self.layout.co_size))
        return None

    def find(self, text):
        """The coroutine of a number, of an address, or `main`: the thread outside any."""
        if text == "main":
            thread = gdb.selected_thread()
            for env, (other, _) in self.threads.items():
                if thread and other.num == thread.num:
                    return self.at(env + self.layout.env_main)
            raise gdb.GdbError("colib: the selected thread has no coroutines.")
        try:
            value = int(gdb.parse_and_eval(text))
        except (gdb.error, TypeError, ValueError) as error:
            raise gdb.GdbError("colib: '%s' is no number or address of a coroutine: %s" % (text, error))
        if 1 <= value <= len(self.coroutines):
            return self.coroutines[value - 1]
        co = self.at(value & (1 << 64) - 1) if value not in range(0, 4096) else None
        if co is None:
            raise gdb.GdbError("colib: no coroutine '%s': there are %d (see info coroutines)."
                               % (text, len(self.coroutines)))
        return co


class ColibPlace:
    """Keeps the user's thread and frame."""

    def __enter__(self):
        self.thread = gdb.selected_thread()
        self.level = 0
        with contextlib.suppress(gdb.error):
            frame, selected = gdb.newest_frame(), gdb.selected_frame()
            while frame is not None and frame != selected and self.level < 10000:
                frame = frame.older()
                self.level += 1

    def __exit__(self, *_):
        if self.thread is not None and self.thread.is_valid():
            self.thread.switch()
            with contextlib.suppress(gdb.error, gdb.GdbError):
                self.select(self.level)

    @staticmethod
    def select(level):
        """As the command frame, which would announce it."""
        frame = gdb.newest_frame()
        for _ in range(level):
            frame = frame.older()
            if frame is None:
                raise gdb.GdbError("colib: it has no such frame.")
        frame.select()


class ColibUnwinder(gdb.unwinder.Unwinder):
    """While it has a coroutine, that one's frames come behind the newest frame of the thread."""

    class FrameId:
        def __init__(self, sp, pc):
            self.sp, self.pc = sp, pc

    def __init__(self):
        super(ColibUnwinder, self).__init__("colib-coroutine")
        self.machine = self.registers = None
        self.newest = None

    def __call__(self, pending):
        if self.registers is None or self.place(pending.read_register) != self.newest:
            return None
        pc = pending.read_register(self.machine.PC)
        # A stack address below those of the coroutine's frames: gdb takes them for outer ones.
        sp = gdb.Value(self.registers[self.machine.SP] - 64).cast(pending.read_register(self.machine.SP).type)
        info = pending.create_unwind_info(self.FrameId(sp, pc))
        for name, value in self.registers.items():
            kind = pending.read_register(name).type
            if kind.sizeof == 8:
                info.add_saved_register(name, gdb.Value(value).cast(kind))
            else:  # A vector register, of which the lower half is saved.
                info.add_saved_register(name, gdb.Value(value.to_bytes(kind.sizeof, "little"), kind))
        return info

    def place(self, read):
        mask = (1 << 64) - 1
        return int(read(self.machine.SP)) & mask, int(read(self.machine.PC)) & mask

    def show(self, co):
        """Until `hide`. In the thread that is selected."""
        self.hide()
        self.machine = colib_machine()
        count = len(self.machine.SAVED)
        words = struct.unpack("<%dQ" % count, co.world.memory.read(co.sp, 8 * count))
        self.newest = self.place(gdb.newest_frame().read_register)
        self.registers = dict(zip(self.machine.SAVED, words))
        self.registers[self.machine.PC] = self.machine.go_on_at(words[-1])
        self.registers[self.machine.SP] = co.sp + 8 * count
        gdb.invalidate_cached_frames()

    def hide(self):
        self.registers = self.newest = None
        gdb.invalidate_cached_frames()


class ColibCore:
    """A core file with a copied-out stack laid where it belongs."""

    # In the second gdb: whose bytes are in place.
    in_place = int(os.environ.get("COLIB_GDB_IN_PLACE", "0"), 0)
    PT_LOAD, PT_NOTE, PN_XNUM, PAGE = 1, 4, 0xFFFF, 4096
    PHDR = "<IIQQQQQQ"

    def __init__(self, path):
        self.file = open(path, "rb")
        head = self.file.read(64)
        if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
            raise gdb.GdbError("colib: '%s' is no 64-bit little-endian ELF core file." % path)
        self.head = head
        phoff, shoff = struct.unpack_from("<QQ", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        if count == self.PN_XNUM:
            self.file.seek(shoff + 44)
            count, = struct.unpack("<I", self.file.read(4))
        self.file.seek(phoff)
        table = self.file.read(size * count)
        self.segments = [list(struct.unpack_from(self.PHDR, table, i * size)) for i in range(len(table) // size)]

    def write(self, out, low, stack, limit):
        """All that fits into `limit` bytes, small mappings first, with `stack` at address `low`. What was left out."""
        start = low & -self.PAGE
        pages = b"\0" * (low - start) + stack
        # In front of what the core has there: the first that has an address counts.
        kept, left = [([self.PT_LOAD, 6, 0, start, 0, len(pages), len(pages), self.PAGE], pages)], 0
        wanted = [s for s in self.segments if s[0] in (self.PT_LOAD, self.PT_NOTE)]
        for segment in sorted(wanted, key=lambda s: (s[0] != self.PT_NOTE, s[5])):
            segment = list(segment)
            if segment[0] == self.PT_LOAD and segment[5] > limit:
                left += segment[5]
                segment[5] = 0
            limit -= segment[5]
            kept.append((segment, None))
        kept.sort(key=lambda k: k[0][0] != self.PT_NOTE)
        at = 64 + 56 * len(kept)
        for segment, data in kept:
            source, segment[2] = segment[2], at + (-at) % self.PAGE
            out.seek(segment[2])
            if data is not None:
                out.write(data)
            else:
                self.copy(out, source, segment[5])
            at = segment[2] + segment[5]
        out.truncate(at)
        self.write_head(out, [segment for segment, _ in kept])
        return left

    def copy(self, out, source, size):
        self.file.seek(source)
        while size > 0:
            data = self.file.read(min(size, 1 << 20))
            if not data:
                return  # A truncated core: zeros.
            if data.count(0) == len(data):
                out.seek(len(data), os.SEEK_CUR)
            else:
                out.write(data)
            size -= len(data)

    def complete(self, memory):
        """Adds to a core that this gdb just wrote what it left out: everything behind a guard page in a mapping, since
        it cannot read that one (guards of newer kernels split no mapping). How many bytes."""
        added = 0
        with open(self.file.name, "r+b") as out:
            for kind, flags, offset, address, _, size, _, _ in self.segments:
                missing = False
                # As gdb reads: the pieces before the first that fails are there.
                for at in range(0, size if kind == self.PT_LOAD and flags & 2 else 0, 1 << 20):
                    length = min(1 << 20, size - at)
                    missing = missing or self.pages(memory, address + at, length, length) == [None]
                    if not missing:
                        continue
                    for i, page in enumerate(self.pages(memory, address + at, length, self.PAGE)):
                        if page is not None and page.count(0) != len(page):
                            out.seek(offset + at + i * self.PAGE)
                            added += out.write(page)
        return added

    @staticmethod
    def pages(memory, address, length, step):
        found = []
        for at in range(address, address + length, step):
            try:
                found.append(bytes(memory.inferior.read_memory(at, step)))
            except gdb.MemoryError:
                found.append(None)
        return found

    def write_head(self, out, segments):
        head = bytearray(self.head)
        if len(segments) >= self.PN_XNUM:
            raise gdb.GdbError("colib: the core has too many mappings to be copied.")
        # No section headers; the program headers follow.
        struct.pack_into("<QQ", head, 32, 64, 0)
        struct.pack_into("<HHHHH", head, 54, 56, len(segments), 0, 0, 0)
        out.seek(0)
        out.write(bytes(head))
        for segment in segments:
            out.write(struct.pack(self.PHDR, *segment))

    @staticmethod
    def command(co, words, core):
        """A second gdb, set up as this one, that says the same of a core where the bytes are in place."""
        command = [os.readlink("/proc/self/exe"), "-nx", "-batch", "-iex",
                   "set auto-load safe-path " + gdb.parameter("auto-load safe-path")]
        for name in ("sysroot", "solib-search-path", "debug-file-directory"):
            command += ["-iex", "set %s %s" % (name, gdb.parameter(name) or "")]
        command += ["-iex", "set width 0"]
        program = gdb.current_progspace().filename
        if program:
            command.append(program)
        command += ["-ex", "core-file " + core]
        if ColibCommand.source:
            command += ["-ex", "source " + ColibCommand.source]
        return command + ["-ex", "coroutine %#x %s" % (co.address, words)]

    @classmethod
    def run(cls, co, words):
        """What `coroutine ID WORDS` says of a coroutine whose bytes a core has elsewhere."""
        memory = co.world.memory
        stack = memory.read(co.word(co.layout.co_saved), co.saved_size)
        end = co.stack_record()[2]
        limit = gdb.parameter("colib-core-copy-limit")
        with tempfile.NamedTemporaryFile(prefix="colib-gdb-", suffix=".core") as out:
            left = cls(memory.core).write(out, end - len(stack), stack, (limit or 0) << 20)
            out.flush()
            size = os.fstat(out.fileno()).st_blocks * 512
            print("colib: its stack is copied out: shown on a copy of the core (%.1f MiB in %s, removed afterwards)%s."
                  % (size / 1048576, os.path.dirname(out.name),
                     ", without %d MiB of large mappings: see set colib-core-copy-limit" % (left >> 20) if left else ""))
            done = subprocess.run(cls.command(co, words, out.name), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, universal_newlines=True,
                                  env=dict(os.environ, COLIB_GDB_IN_PLACE=hex(co.address)))
        begin = done.stdout.find(ColibCommand.BEGIN)
        if begin < 0:
            raise gdb.GdbError("colib: the second gdb failed: " + (done.stderr.strip() or done.stdout.strip()))
        return done.stdout[begin + len(ColibCommand.BEGIN):]


class ColibBase(gdb.Command):
    """What our commands have in common."""

    def invoke(self, argument, from_tty):
        try:
            self.run(argument.strip())
        except OSError as error:
            raise gdb.GdbError("colib: %s" % error)
        except gdb.error as error:
            # gdb's own words, without a Python traceback around them.
            raise gdb.GdbError(str(error))


class ColibLimit(gdb.Parameter):
    """How many MiB of a core file may be copied to show a stack that is copied out."""

    set_doc = "Set how many MiB of a core file may be copied to show a coroutine whose stack is copied out."
    show_doc = "Show how many MiB of a core file may be copied to show a coroutine whose stack is copied out."

    def __init__(self):
        super(ColibLimit, self).__init__("colib-core-copy-limit", gdb.COMMAND_DATA, gdb.PARAM_ZINTEGER)
        self.value = 1024

    def get_set_string(self):
        return ""

    def get_show_string(self, value):
        return "At most %s MiB of a core file are copied." % value


class ColibInfo(ColibBase):
    """List the coroutines of colib: info coroutines [-STATE ...] [-thread N] [-all]

STATE is new, suspended, waiting, ready, running, resuming (it resumed another one that runs), ended or released.
Without -all, 100 are listed. The number is that of this stop; the address stays while the coroutine lives."""

    STATES = ("new", "suspended", "waiting", "ready", "running", "resuming", "ended", "released")
    SHOWN = 100

    def __init__(self):
        super(ColibInfo, self).__init__("info coroutines", gdb.COMMAND_STATUS)

    def run(self, argument):
        states, thread, everything = self.parse(gdb.string_to_argv(argument))
        world = ColibWorld()
        chosen = [co for co in world.coroutines if (not states or co.state in states)
                  and (thread is None or world.thread_name(co.env) == thread)]
        self.print_counts(world, chosen)
        if not chosen:
            return
        shown = chosen if everything else chosen[:self.SHOWN]
        rows = [("", "Id", "Coroutine", "Thread", "State", "Routine", "Stack", "Waits for")]
        for co in shown:
            rows.append(("*" if co.state == "running" else "", str(co.id), "%#x" % co.address,
                         world.thread_name(co.env), co.state, co.name(), self.cell(co.stack_used), self.cell(co.waits_for)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if len(shown) < len(chosen):
            print("%d more: info coroutines -all" % (len(chosen) - len(shown)))
        if not world.memory.native and any(co.state == "waiting" for co in shown):
            print("Times are those of each loop's last round.")

    @staticmethod
    def cell(text):
        """What one coroutine does not say does not keep the others from being listed."""
        try:
            return text()
        except gdb.GdbError:
            return "?"

    def parse(self, words):
        states, thread, everything = set(), None, False
        words = iter(words)
        for word in words:
            if word == "-all":
                everything = True
            elif word == "-thread":
                thread = next(words, None)
                if thread is None or not thread.isdigit():
                    raise gdb.GdbError("colib: -thread wants the number of a thread, as info threads shows it.")
            elif word.startswith("-") and word[1:] in self.STATES:
                states.add(word[1:])
            else:
                raise gdb.GdbError("colib: '%s' is none of -all, -thread N, -%s." % (word, ", -".join(self.STATES)))
        return states, thread, everything

    def print_counts(self, world, chosen):
        counts = [(sum(co.state == state for co in chosen), state) for state in self.STATES]
        print("%d of %d coroutines%s" % (len(chosen), len(world.coroutines), ": " if chosen else ".")
              + ", ".join("%d %s" % count for count in counts if count[0]))


class ColibCommand(ColibBase):
    """Show a coroutine of colib: coroutine ID [bt [ARGUMENTS] | frame LEVEL [COMMAND] | select]

ID is a number that info coroutines shows, an address, or `main`: the selected thread outside any coroutine.
  coroutine ID                        what is known of it
  coroutine ID bt [ARGUMENTS]         its backtrace; arguments as those of bt
  coroutine ID frame LEVEL [COMMAND]  runs a command (info locals, print, ...) in one of its frames
  coroutine ID select                 makes its frames those of the thread, from #1 on, until `coroutine off`
  coroutine apply all [-all] bt       all backtraces, of 100 or with -all of more
  coroutine gcore [FILE]              generate-core-file, with the stacks that it leaves out behind guard pages"""

    BEGIN = "---- colib\n"
    # So many copies of a core are made by `apply all` unasked.
    COPIES = 10
    # Where this script lies, if it came from a file and not from the program.
    source = globals().get("__file__")
    unwinder = ColibUnwinder()

    def __init__(self):
        super(ColibCommand, self).__init__("coroutine", gdb.COMMAND_STACK)
        gdb.unwinder.register_unwinder(None, self.unwinder, replace=True)

    def run(self, argument):
        words = argument.split(None, 1)
        if not words:
            raise gdb.GdbError("colib: which coroutine? See help coroutine.")
        if words[0] == "off":
            self.unwinder.hide()
        elif words[0] == "gcore":
            self.save_core(words[1].strip() if len(words) > 1 else "")
        elif words[0] == "apply":
            self.apply(words[1] if len(words) > 1 else "")
        else:
            self.unwinder.hide()
            co = ColibWorld().find(words[0])
            self.act(co, words[1].strip() if len(words) > 1 else "")

    def apply(self, text):
        words = re.match(r"all\s+(-all\s+)?((?:bt|backtrace|where)\b.*)$", text)
        if not words:
            raise gdb.GdbError("colib: coroutine apply all [-all] bt [ARGUMENTS]")
        self.unwinder.hide()
        coroutines = ColibWorld().coroutines
        shown = coroutines if words.group(1) else coroutines[:ColibInfo.SHOWN]
        copies = 0
        for co in shown:
            print("\nCoroutine %d (%#x, %s, %s):" % (co.id, co.address, co.name(), co.state))
            try:
                copies += co.world.memory.core is not None and co.is_copied_out()
                if copies > self.COPIES and not words.group(1) and co.is_copied_out():
                    print("colib: its stack is copied out: coroutine %d bt" % co.id)
                else:
                    self.act(co, words.group(2))
            except (gdb.GdbError, gdb.error) as error:
                print(error)
        if len(shown) < len(coroutines):
            print("%d more: coroutine apply all -all bt" % (len(coroutines) - len(shown)))

    def save_core(self, path):
        memory = ColibMemory()
        if memory.core:
            raise gdb.GdbError("colib: this is a core file already.")
        path = os.path.expanduser(path) or "core.%d" % memory.inferior.pid
        gdb.execute("generate-core-file " + path)
        core = ColibCore(path)
        added = core.complete(memory)
        print("colib: added %.1f MiB that lie behind guard pages." % (added / 1048576))

    def act(self, co, text):
        words = text.split(None, 1)
        rest = words[1] if len(words) > 1 else ""
        if not words:
            self.describe(co)
        elif words[0] in ("bt", "backtrace", "where"):
            self.print_frames(co, text, lambda first: self.backtrace(rest, first))
        elif words[0] == "frame":
            level = rest.split(None, 1)
            if not level or not level[0].isdigit():
                raise gdb.GdbError("colib: coroutine ID frame LEVEL [COMMAND]")
            self.print_frames(co, text, lambda first: self.in_frame(int(level[0]) + first, first, level[1:]))
        elif words[0] == "select" and not rest:
            self.select(co)
        else:
            raise gdb.GdbError("colib: '%s' is none of bt, frame, select." % words[0])

    def print_frames(self, co, text, show):
        """Prints what `show` says with the coroutine's frames behind the first `n` of the thread's."""
        if co.state == "running":
            thread = co.world.thread(co.env)
            if thread is None:
                raise gdb.GdbError("colib: it runs, and its thread cannot be told or is not stopped.")
            with ColibPlace():
                thread.switch()
                said = show(0)
        elif not co.has_frames():
            raise gdb.GdbError("colib: it has no frames: it is %s." % co.state)
        elif co.is_copied_out() and co.world.memory.core:
            said = ColibCore.run(co, text)
        else:
            with self.looking_at(co):
                said = show(1)
        mark = self.BEGIN if ColibCore.in_place else ""
        gdb.write(mark + said)

    @contextlib.contextmanager
    def looking_at(self, co):
        memory = co.world.memory
        if not memory.core and any(thread.is_running() for thread in memory.inferior.threads()):
            raise gdb.GdbError("colib: a thread runs: stop the process first (interrupt -a).")
        with ColibPlace(), self.bytes_in_place(co):
            thread = co.world.thread(co.env)
            if thread is not None:
                thread.switch()
            try:
                self.unwinder.show(co)
                yield
            finally:
                self.unwinder.hide()

    @contextlib.contextmanager
    def bytes_in_place(self, co):
        """A live process, stopped: the saved bytes lie on the stack meanwhile."""
        if not co.is_copied_out():
            yield
            return
        memory, saved = co.world.memory, co.word(co.layout.co_saved)
        low = co.stack_record()[2] - co.saved_size
        before, after = memory.read(low, co.saved_size), memory.read(saved, co.saved_size)
        try:
            memory.inferior.write_memory(low, after)
            yield
        finally:
            memory.inferior.write_memory(low, before)
            gdb.invalidate_cached_frames()

    def backtrace(self, arguments, first):
        words = [str(int(w) + first) if w.isdigit() else w for w in arguments.split()]
        return self.renumber(gdb.execute("backtrace " + " ".join(words), to_string=True), first)

    def in_frame(self, level, first, command):
        ColibPlace.select(level)
        if command:
            return gdb.execute(command[0], to_string=True)
        return self.renumber(gdb.execute("frame", to_string=True), first)

    @staticmethod
    def renumber(said, first):
        """Without the frames before the first, which are the thread's."""
        lines, drop = [], False
        for line in said.splitlines():
            number = re.match(r"#(\d+) +", line)
            if number:
                level = int(number.group(1)) - first
                drop = level < 0
                line = "#%-3d" % level + line[number.end():]
            if not drop:
                lines.append(line)
        return "\n".join(lines) + "\n"

    def select(self, co):
        if co.state == "running":
            co.world.thread(co.env).switch()
        elif not co.has_frames():
            raise gdb.GdbError("colib: it has no frames: it is %s." % co.state)
        elif co.is_copied_out():
            raise gdb.GdbError("colib: its stack is copied out: use coroutine ID bt, coroutine ID frame LEVEL COMMAND.")
        else:
            thread = co.world.thread(co.env)
            if thread is not None:
                thread.switch()
            self.unwinder.show(co)
            print("The coroutine's frames begin at #1, until `coroutine off`; #0 is the thread's.")
            gdb.execute("frame 1")

    def describe(self, co):
        world = co.world
        print("Coroutine %s at %#x: %s" % (co.id or "(main)", co.address, co.state))
        print("  routine  %s (argument %#x)" % (self.place(co), co.word(co.layout.co_arg)))
        print("  thread   %s" % world.thread_name(co.env))
        if co.waits_for():
            print("  waits    %s" % co.waits_for())
        if co.resumer:
            resumer = world.at(co.resumer)
            print("  resumed  by %s" % ("the main coroutine" if resumer and resumer.is_main else
                                        "coroutine %s" % (resumer.id if resumer else "%#x" % co.resumer)))
        if not co.is_main:
            print("  stack    %s, ends at %#x" % (co.stack_used(), co.stack_record()[2]))

    @staticmethod
    def place(co):
        line = gdb.find_pc_line(co.routine)
        return co.name() + (" at %s:%d" % (line.symtab.filename, line.line) if line.symtab else "")


ColibLimit()
ColibInfo()
ColibCommand()
