//! What few coroutines need, allocated when used: the specifics past the first, private environment variables
//! (`environ`), and the buffers behind the calls that return static storage. C sees its address as `pvEnv`.

use core::cell::Cell;
use core::ffi::{c_char, c_void};
use core::ptr::NonNull;

use crate::routine::coroutine::Co;
use crate::routine::environ;
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};
use crate::sys::tools;

/// How many specifics a coroutine has, as the original.
pub(crate) const SPECIFICS: usize = 1024;

/// Specifics per part: most programs use a handful of keys.
const PART: usize = 32;
const PARTS: usize = SPECIFICS / PART;

/// All-zero bytes are an `Extra` with nothing in it.
#[repr(C)]
pub(crate) struct Extra {
    parts: [Cell<*mut [Cell<*mut c_void>; PART]>; PARTS],
    /// `environ`'s values.
    pub(super) variables: Cell<*mut *mut c_char>,
    /// The result of the last gethostbyname, and how to free it.
    host: Cell<*mut c_void>,
    /// This coroutine's `struct __res_state`.
    resolver: Cell<*mut c_void>,
    /// What ThreadSanitizer knows of the coroutine.
    pub(super) fiber: Cell<*mut c_void>,
}

// SAFETY: null pointers.
unsafe impl Zeroed for Extra {}
// SAFETY: null pointers.
unsafe impl Zeroed for Cell<*mut c_void> {}
// SAFETY: plain bytes.
unsafe impl Zeroed for u8 {}

/// The coroutine's extras, made on first use; `None` without memory.
pub(crate) fn of(co: Co) -> Option<&'static Extra> {
    if co.extra.get().is_null() {
        co.extra.set(heap::alloc::<Extra>()?.as_ptr());
    }
    // SAFETY: lives until `drop_of`, which runs when the coroutine is released; callers use the
    // reference within one call.
    Some(unsafe { &*co.extra.get() })
}

/// The coroutine's extras, if it has any.
pub(super) fn if_any(co: Co) -> Option<&'static Extra> {
    // SAFETY: null, or as in `of`.
    unsafe { co.extra.get().as_ref() }
}

/// co_getspecific in a coroutine.
pub(crate) fn get_specific(co: Co, key: usize) -> *mut c_void {
    if key == 0 {
        return co.spec0.get();
    }
    let Some(extra) = if_any(co).filter(|_| key < SPECIFICS) else { return core::ptr::null_mut() };
    let part = extra.parts[key / PART].get();
    if part.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: a part is PART cells.
    unsafe { (&*part)[key % PART].get() }
}

/// co_setspecific in a coroutine.
pub(crate) fn set_specific(co: Co, key: usize, value: *mut c_void) -> Result<(), Errno> {
    if key == 0 {
        co.spec0.set(value);
        return Ok(());
    }
    if key >= SPECIFICS {
        return Err(Errno(libc::EINVAL));
    }
    let slot = &of(co).ok_or(Errno(libc::ENOMEM))?.parts[key / PART];
    if slot.get().is_null() {
        let part = heap::alloc_array::<Cell<*mut c_void>>(PART).ok_or(Errno(libc::ENOMEM))?;
        slot.set(part.as_ptr().cast());
    }
    // SAFETY: a part is PART cells.
    unsafe { (&*slot.get())[key % PART].set(value) };
    Ok(())
}

/// `size` zeroed bytes that stay with the coroutine: its `struct __res_state`.
pub(crate) fn resolver(co: Co, size: usize) -> Option<*mut c_void> {
    let extra = of(co)?;
    if extra.resolver.get().is_null() {
        extra.resolver.set(heap::alloc_array::<u8>(size)?.as_ptr().cast());
    }
    Some(extra.resolver.get())
}

/// Keeps `host` (one C heap object) until the next one or the coroutine's end; false without memory.
pub(crate) fn keep_host(co: Co, host: *mut c_void) -> bool {
    let Some(extra) = of(co) else { return false };
    let old = extra.host.replace(host);
    // SAFETY: the last result, from the C heap, replaced by this one as the manual says.
    unsafe { libc::free(old) };
    true
}

/// Frees the coroutine's extras; the values of specifics belong to the program.
pub(crate) fn drop_of(co: Co) {
    let Some(extra) = NonNull::new(co.extra.replace(core::ptr::null_mut())) else { return };
    // SAFETY: nobody else has it: the coroutine is being released.
    let parts = unsafe { extra.as_ref() };
    for part in &parts.parts {
        // SAFETY: null or from the C heap.
        unsafe { libc::free(part.get().cast()) };
    }
    tools::end_fiber(parts.fiber.get());
    environ::drop_of(parts);
    // SAFETY: null or from the C heap.
    unsafe { libc::free(parts.host.get()) };
    // SAFETY: null or from the C heap.
    unsafe { libc::free(parts.resolver.get()) };
    // SAFETY: from `heap::alloc`, used no more.
    unsafe { heap::free(extra) };
}
