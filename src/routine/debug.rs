//! What a debugger needs to know to see coroutines: where they are and how they are laid out, in a table that
//! scripts/gdb/colib-gdb.py reads from the process or the core, so that no debug information of the
//! library is needed. The script itself comes along, in a section of the file that is never loaded.
//!
//! ```text
//!   colib_debug_layout: magic  version  count  self ──► (itself, as a sign that it is no copy)
//!                       roots: chunks of blocks, environments, where each thread keeps its environment
//!                       count numbers, in the order of FIELDS in the script
//! ```
//!
//! Found by its name, which the shared library exports, or in a stripped program by its magic. A change
//! of the order or the meaning of the numbers is a change of VERSION; the test below holds the two together.

use core::arch::global_asm;
use core::mem::offset_of;

use crate::arch;
use crate::event::{self, Node, node_at};
use crate::routine::coroutine::{self, AT_END, Coroutine, RELEASED, Wait};
use crate::routine::env::others::ENVS;
use crate::routine::env::{self, Env};
use crate::routine::stack::{self, COLOURS, StackMem};
use crate::util::{list, pool};

/// What the script must agree to.
const VERSION: u32 = 1;

const WAIT: usize = offset_of!(Coroutine, wait);
const NODE: usize = WAIT + offset_of!(Wait, node);

/// The numbers, each with the name that the script gives it.
macro_rules! numbers {
    ($($name:ident = $value:expr,)*) => {
        const NUMBERS: &[u32] = &[$($value as u32),*];
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

numbers! {
    list_next = list::at::NEXT,
    chunk_size = pool::at::CHUNK,
    chunk_link = pool::at::LINK,
    chunk_fresh = pool::at::FRESH,
    chunk_first = pool::at::FIRST,
    env_link = offset_of!(Env, in_envs),
    env_current = env::at::CURRENT,
    env_reactor = offset_of!(Env, reactor),
    env_main = offset_of!(Env, main),
    reactor_tick = event::TICK,
    co_size = pool::TRACKED_SIZE,
    co_env = coroutine::at::ENV,
    co_routine = coroutine::at::PFN,
    co_arg = coroutine::at::ARG,
    co_sp = coroutine::at::SP,
    co_resumer = coroutine::at::RESUMER,
    co_started = coroutine::at::WORD,
    co_ended = coroutine::at::ENDED,
    co_is_main = offset_of!(Coroutine, c_is_main),
    co_on_copy_stack = offset_of!(Coroutine, c_is_share_stack),
    co_pending = coroutine::at::PENDING,
    co_laid_down = coroutine::at::LAID_DOWN,
    co_stack = coroutine::at::STACK_MEM,
    co_saved_size = offset_of!(Coroutine, save_size),
    co_saved = offset_of!(Coroutine, save_buffer),
    wait_state = coroutine::at::WAIT_STATE,
    wait_kind = coroutine::at::WAIT_KIND,
    wait_expires = WAIT + offset_of!(Wait, timer) + event::EXPIRES,
    wait_node = NODE,
    wait_reactor = WAIT + offset_of!(Wait, reactor),
    wait_more = WAIT + offset_of!(Wait, more),
    wait_count = WAIT + offset_of!(Wait, count),
    wait_since = coroutine::at::BEGAN,
    node_size = size_of::<Node>(),
    node_co = node_at::CO,
    node_fd = node_at::FD,
    node_events = node_at::EVENTS,
    stack_occupant = offset_of!(StackMem, occupy_co),
    stack_size = offset_of!(StackMem, stack_size),
    stack_tag = stack::at::TAG,
    stack_end = stack::at::STACK_BP,
    stack_colours = COLOURS,
    sp_at_end = AT_END,
    pending_released = RELEASED,
}

/// As the script reads it.
#[repr(C)]
struct Layout {
    magic: [u8; 16],
    version: u32,
    count: u32,
    this: *const Layout,
    chunks: *const u8,
    envs: *const u8,
    slot_offset: unsafe extern "C" fn(),
    numbers: [u32; NUMBERS.len()],
}

// SAFETY: constant, and its pointers are for the debugger alone.
unsafe impl Sync for Layout {}

/// See the module. Exported, since a stripped shared library has no other names.
#[unsafe(export_name = "colib_debug_layout")]
static LAYOUT: Layout = Layout {
    magic: *b"colib-gdb-layout",
    version: VERSION,
    count: NUMBERS.len() as u32,
    this: &raw const LAYOUT,
    chunks: pool::at::tracked(),
    envs: (&raw const ENVS.alive).cast(),
    slot_offset,
    numbers: {
        let mut numbers = [0; NUMBERS.len()];
        let mut i = 0;
        while i < NUMBERS.len() {
            numbers[i] = NUMBERS[i];
            i += 1;
        }
        numbers
    },
};

/// What to add to a thread's pointer (fs_base) to find the slot of its environment: only the linker knows, which
/// writes it into this instruction or into the place that it loads from. The script reads the instruction.
#[unsafe(naked)]
unsafe extern "C" fn slot_offset() {
    arch::slot_offset_body!()
}

/// Refers to the table from code that every program with coroutines has, so that a linker that drops what is
/// unused keeps it. No instruction.
#[inline(always)]
pub(super) fn keep_layout() {
    // SAFETY: a relocation of no effect.
    unsafe {
        arch::keep!(LAYOUT);
    }
}

// The script, as gdb finds it in a program's file: kind 4 (Python text), a name on the first line, the text, a
// zero. `strip` takes it out again.
global_asm!(
    ".pushsection .debug_gdb_scripts,\"MS\",@progbits,1",
    ".byte 4",
    ".ascii \"colib-gdb.py\\n\"",
    concat!(".incbin \"", env!("CARGO_MANIFEST_DIR"), "/scripts/gdb/colib-gdb.py\""),
    ".byte 0",
    ".popsection",
);
/// (Tells cargo that the library is to be built anew when the script changes.)
const _: &[u8] = include_bytes!("../../scripts/gdb/colib-gdb.py");

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = include_str!("../../scripts/gdb/colib-gdb.py");

    #[test]
    fn the_script_reads_the_numbers_in_their_order() {
        let (_, fields) = SCRIPT.split_once("FIELDS = \"\"\"").unwrap();
        let (fields, _) = fields.split_once("\"\"\"").unwrap();
        assert_eq!(fields.split_whitespace().collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn the_script_knows_this_version_and_magic() {
        assert!(SCRIPT.contains(&format!("    VERSION = {VERSION}\n")));
        assert!(SCRIPT.contains(&format!("b\"{}\"", str::from_utf8(&LAYOUT.magic).unwrap())));
        assert!(!SCRIPT.contains('\0'), "a zero would end it");
    }

    #[test]
    fn the_table_has_all_numbers() {
        assert_eq!(LAYOUT.numbers, NUMBERS);
        assert_eq!(LAYOUT.count as usize, NAMES.len());
        assert!(core::ptr::eq(LAYOUT.this, &LAYOUT));
    }
}
