//! Who called the library: the address in the program that a message about misuse ends with.
//!
//! ```text
//!   find ◄ emit_fmt ◄ release_slowly ◄ co_release ◄ the program's function      the unwinder walks this way
//!                     └ doors ───────────────────┘  └ the first frame behind them that is not one
//! ```
//!
//! Nothing is kept for this while all goes well: the frames are walked when a message is wanted, by the tables that
//! every function of ours has. Where a shared library of its own holds us, what is ours is what lies in it. Linked
//! into a program, our functions lie among the program's: then the list that [`know`] was given tells them apart.

use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use crate::arch::weak_function;

/// A function's address, in a list.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Function(pub(crate) *const ());

// SAFETY: an address, which nobody writes to.
unsafe impl Sync for Function {}

/// What only the library's upper parts know.
pub(crate) struct Knowledge {
    /// The functions that the program calls, those that say it has misused them, and those of ours in between. (A function may
    /// be left by a jump to another: then only that one has a frame.)
    pub(crate) doors: [&'static [Function]; 5],
    /// Bytes of stack below the calling function that are there to use.
    pub(crate) stack_left: fn() -> usize,
}

static KNOWLEDGE: AtomicPtr<Knowledge> = AtomicPtr::new(null_mut());

/// Called once, when the library is loaded.
pub(crate) fn know(knowledge: &'static Knowledge) {
    KNOWLEDGE.store((&raw const *knowledge).cast_mut(), Ordering::Release);
}

fn knowledge() -> Option<&'static Knowledge> {
    // SAFETY: null, or the static object that `know` was given.
    unsafe { KNOWLEDGE.load(Ordering::Acquire).as_ref() }
}

fn is_door(function: *const c_void) -> bool {
    let lists = knowledge().map_or(&[][..], |known| &known.doors[..]);
    lists.iter().copied().flatten().any(|door| core::ptr::eq(door.0, function.cast()))
}

/// A part of the process: the program or a shared library.
#[derive(Clone, Copy)]
struct Module {
    /// Empty for the program.
    name: *const c_char,
    /// How far its addresses are from those in its file.
    bias: usize,
}

/// In a child of fork a lock of the loader may be held for ever, by a thread that only the parent has.
static LOADER_MAY_BE_LOCKED: AtomicBool = AtomicBool::new(false);
/// Whether there may be other threads than the one that forks.
static FORKS_WITH_THREADS: AtomicBool = AtomicBool::new(false);

pub(crate) fn before_fork() {
    // (musl does not say so, and has no such lock in a fully static program.)
    let says = weak_function!("__libc_single_threaded").cast::<AtomicU8>();
    // SAFETY: a byte of the C library's, where it has one: 0 since the process began its second thread.
    let threads = unsafe { says.as_ref() }.is_none_or(|alone| alone.load(Ordering::Relaxed) == 0);
    FORKS_WITH_THREADS.store(threads && cfg!(not(target_env = "musl")), Ordering::Relaxed);
}

pub(crate) fn after_fork_in_child() {
    if FORKS_WITH_THREADS.load(Ordering::Relaxed) {
        LOADER_MAY_BE_LOCKED.store(true, Ordering::Relaxed);
    }
}

/// Where the library was called.
pub(crate) struct Caller {
    /// Where it goes on after the call.
    address: usize,
    module: Option<Module>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)?;
        let Some(module) = self.module else { return Ok(()) };
        f.write_str(" = ")?;
        write!(f, "{}+{:#x}", module.file().escape_ascii(), self.address.wrapping_sub(module.bias))
    }
}

impl Module {
    /// The name of its file.
    fn file(&self) -> &[u8] {
        // SAFETY: the loader's own string, which stays while the module does.
        let name = unsafe { CStr::from_ptr(self.name) }.to_bytes();
        // (What musl calls the program would be addr2line, to that.)
        if !name.is_empty() && name != b"/proc/self/exe" {
            return name;
        }
        // SAFETY: asks for what the kernel has told the process.
        let program = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const c_char;
        if program.is_null() {
            return b"the program";
        }
        // SAFETY: a string above the program's stack, there for ever.
        unsafe { CStr::from_ptr(program) }.to_bytes()
    }

    fn is_ours_alone(&self) -> bool {
        let file = self.file().rsplit(|&byte| byte == b'/').next().unwrap_or(b"");
        file.starts_with(b"libcolib.so")
    }
}

/// The module that an address lies in.
fn module_of(address: usize) -> Option<Module> {
    struct Search {
        address: usize,
        found: Option<Module>,
    }
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
        // SAFETY: the loader's record of a module.
        let info = unsafe { &*info };
        // SAFETY: what `module_of` passed, which nobody else uses meanwhile.
        let search = unsafe { &mut *search.cast::<Search>() };
        let bias = info.dlpi_addr as usize;
        for i in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: `dlpi_phnum` of them.
            let part = unsafe { &*info.dlpi_phdr.wrapping_add(i) };
            let start = bias.wrapping_add(part.p_vaddr as usize);
            if part.p_type == libc::PT_LOAD && search.address.wrapping_sub(start) < part.p_memsz as usize {
                search.found = Some(Module { name: info.dlpi_name, bias });
                return 1;
            }
        }
        0
    }
    let mut search = Search { address, found: None };
    // SAFETY: `look` is what it asks for, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

type Trace = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;

// The unwinder's own, which Rust's runtime and C++ exceptions use as well.
unsafe extern "C" {
    fn _Unwind_Backtrace(trace: Trace, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *const c_void) -> *const c_void;
}

/// `_URC_NO_REASON`, and what ends a walk.
const GO_ON: c_int = 0;
const ENOUGH: c_int = 5;

/// A walk takes some 2.5 KiB of stack; where there is not much more, it is better left alone.
const ENOUGH_STACK: usize = 6 * 1024;

/// A walk gives up after so many frames of ours.
const DEEPEST: u32 = 64;

struct Walk {
    /// The module of ours alone, if there is one.
    ours: Option<Module>,
    through_door: Cell<bool>,
    frames: Cell<u32>,
    caller: Cell<usize>,
}

impl Walk {
    /// Whether the code that goes on at `address` is the caller's.
    fn has_left(&self, address: usize) -> bool {
        if let Some(ours) = self.ours {
            return module_of(address).is_none_or(|module| module.bias != ours.bias);
        }
        // SAFETY: looks an address up in the tables for unwinding; any will do.
        let function = unsafe { _Unwind_FindEnclosingFunction(address as *const c_void) };
        let door = !function.is_null() && is_door(function);
        self.through_door.set(self.through_door.get() || door);
        self.through_door.get() && !door
    }
}

unsafe extern "C" fn step(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: what `find` passed.
    let walk = unsafe { &*walk.cast::<Walk>() };
    // SAFETY: the unwinder's context of this frame.
    let address = unsafe { _Unwind_GetIP(context) };
    if address == 0 {
        return ENOUGH;
    }
    if walk.has_left(address) {
        walk.caller.set(address);
        return ENOUGH;
    }
    walk.frames.set(walk.frames.get() + 1);
    if walk.frames.get() == DEEPEST { ENOUGH } else { GO_ON }
}

/// Who called the public function that the calling code belongs to; `None` if that cannot be told.
#[cold]
#[inline(never)]
pub(crate) fn find() -> Option<Caller> {
    if (knowledge()?.stack_left)() < ENOUGH_STACK || LOADER_MAY_BE_LOCKED.load(Ordering::Relaxed) {
        return None;
    }
    let here = find as fn() -> Option<Caller> as *const ();
    let walk = Walk {
        ours: module_of(here.addr()).filter(Module::is_ours_alone),
        through_door: Cell::new(false),
        frames: Cell::new(0),
        caller: Cell::new(0),
    };
    // SAFETY: `step` is what it asks for, and `walk` outlives the call.
    unsafe { _Unwind_Backtrace(step, (&raw const walk).cast_mut().cast()) };
    let address = walk.caller.get();
    (address != 0).then(|| Caller { address, module: module_of(address) })
}
