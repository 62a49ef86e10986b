//! coctx.h: the original's raw context switch, for programs that use it on contexts of their own. Our
//! coroutines do not use it.

use core::ffi::{c_char, c_int, c_void};

use crate::arch;

/// What a raw context runs: gets the two arguments of coctx_make.
pub type coctx_pfn_t = Option<unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> *mut c_void>;

/// The two arguments of a context (used by the original on i386 alone).
#[repr(C)]
pub struct coctx_param_t {
    pub s1: *const c_void,
    pub s2: *const c_void,
}

/// A raw context: the registers, then its stack, which the program supplies.
///
/// ss_size: bytes at ss_sp. ss_sp: the lowest byte of the stack.
#[repr(C)]
pub struct coctx_t {
    pub regs: [*mut c_void; 14],
    pub ss_size: usize,
    pub ss_sp: *mut c_char,
}

const _: () = {
    assert!(arch::coctx::REGS == 14);
    assert!(size_of::<coctx_t>() == 128);
    assert!(core::mem::offset_of!(coctx_t, ss_sp) == 120);
    assert!(size_of::<coctx_param_t>() == 16);
};

/// Fills a context with zeros. Returns 0; -1 for NULL, where the original crashes.
///
/// # Safety
/// ctx is NULL or a coctx_t.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn coctx_init(ctx: *mut coctx_t) -> c_int {
    if ctx.is_null() {
        return -1;
    }
    // SAFETY: a coctx_t of the caller's; all-zero bytes are valid.
    unsafe { ctx.write_bytes(0, 1) };
    0
}

/// Prepares a context to call pfn(s, s1) on its stack. pfn must not return. Returns 0; -1 for NULL or a
/// context without a stack, where the original crashes.
///
/// # Safety
/// ctx is NULL or a coctx_t whose ss_sp and ss_size describe a writable stack.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn coctx_make(
    ctx: *mut coctx_t,
    pfn: coctx_pfn_t,
    s: *const c_void,
    s1: *const c_void,
) -> c_int {
    // SAFETY: as the caller vouches.
    let Some(ctx) = (unsafe { ctx.as_mut() }) else { return -1 };
    if ctx.ss_sp.is_null() || ctx.ss_size < arch::coctx::LEAST {
        return -1;
    }
    let top = ctx.ss_sp.cast::<u8>().wrapping_add(ctx.ss_size);
    let entry = pfn.map_or(core::ptr::null_mut(), |f| f as *mut c_void);
    // SAFETY: the end of the caller's stack.
    unsafe { arch::coctx::make(&mut ctx.regs, top, entry, s.cast_mut(), s1.cast_mut()) };
    0
}
