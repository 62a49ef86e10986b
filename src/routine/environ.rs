//! Environment variables private to a coroutine: the names given to co_set_env_list.
//!
//! The list is process-wide and set once. A coroutine's values hang at its extras, one slot a name, null
//! while unset. Called by `hook::env`.

use core::ffi::{CStr, c_char};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::routine::coroutine::Co;
use crate::routine::extra::{self, Extra};
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};

/// The names, sorted, each once.
#[repr(C)]
pub(crate) struct Names {
    count: usize,
    names: *mut *mut c_char,
}

// SAFETY: an empty list.
unsafe impl Zeroed for Names {}
// SAFETY: null pointers.
unsafe impl Zeroed for *mut c_char {}

static NAMES: AtomicPtr<Names> = AtomicPtr::new(null_mut());

/// Sets the process's list; the first call wins. NULL and empty names are passed over.
///
/// # Safety
/// `names` points at `count` pointers, each null or a C string.
pub(crate) unsafe fn set_names(names: *const *const c_char, count: usize) -> Result<(), Errno> {
    if !NAMES.load(Ordering::Acquire).is_null() || names.is_null() || count == 0 {
        return Ok(());
    }
    let no_memory = Errno(libc::ENOMEM);
    let list = heap::alloc::<Names>().ok_or(no_memory)?;
    let array = heap::alloc_array::<*mut c_char>(count).ok_or(no_memory)?;
    // SAFETY: `count` null pointers, seen by nobody else.
    let entries = unsafe { core::slice::from_raw_parts_mut(array.as_ptr(), count) };
    let mut used = 0;
    for i in 0..count {
        // SAFETY: `count` pointers.
        let name = unsafe { *names.wrapping_add(i) };
        if name.is_null() {
            continue;
        }
        // SAFETY: a C string.
        let text = unsafe { CStr::from_ptr(name) };
        if text.is_empty() {
            continue;
        }
        let Err(place) = find(&entries[..used], text) else { continue };
        // SAFETY: a C string.
        let copy = unsafe { libc::strdup(name) };
        if copy.is_null() {
            return Err(no_memory);
        }
        entries.copy_within(place..used, place + 1);
        entries[place] = copy;
        used += 1;
    }
    // SAFETY: ours, seen by nobody yet.
    unsafe { list.write(Names { count: used, names: array.as_ptr() }) };
    // If another thread was quicker, its list stands; ours is a few bytes, once.
    let _ = NAMES.compare_exchange(null_mut(), list.as_ptr(), Ordering::AcqRel, Ordering::Acquire);
    Ok(())
}

fn find(sorted: &[*mut c_char], name: &CStr) -> Result<usize, usize> {
    sorted.binary_search_by(|entry| {
        // SAFETY: entries are C strings.
        unsafe { CStr::from_ptr(*entry) }.cmp(name)
    })
}

/// Whether there is a list at all: asked first, it is one load.
#[inline]
pub(crate) fn in_use() -> bool {
    !NAMES.load(Ordering::Relaxed).is_null()
}

/// The place of a private name.
fn place_of(name: &CStr) -> Option<usize> {
    // SAFETY: null or a list that is never changed or freed.
    let list = unsafe { NAMES.load(Ordering::Acquire).as_ref() }?;
    if list.count == 0 {
        return None;
    }
    // SAFETY: `count` entries.
    let names = unsafe { core::slice::from_raw_parts(list.names.cast_const(), list.count) };
    find(names, name).ok()
}

/// The values of `co`, made on first use.
fn values(co: Co) -> Option<*mut *mut c_char> {
    let variables = &extra::of(co)?.variables;
    if variables.get().is_null() {
        // SAFETY: a name was found, so there is a list.
        let count = unsafe { (*NAMES.load(Ordering::Acquire)).count };
        variables.set(heap::alloc_array::<*mut c_char>(count)?.as_ptr());
    }
    Some(variables.get())
}

/// The values of `co`, null if it has none.
fn values_if_any(co: Co) -> *mut *mut c_char {
    extra::if_any(co).map_or(null_mut(), |extra| extra.variables.get())
}

/// The private value of `name`: `None` if the name is not private, null if it is unset.
pub(crate) fn get(co: Co, name: &CStr) -> Option<*mut c_char> {
    let place = place_of(name)?;
    let values = values_if_any(co);
    if values.is_null() {
        return Some(null_mut());
    }
    // SAFETY: one value a name.
    Some(unsafe { *values.wrapping_add(place) })
}

/// Sets (or with `None` unsets) a private value. `None`: the name is not private.
pub(crate) fn set(co: Co, name: &CStr, value: Option<&CStr>, overwrite: bool) -> Option<Result<(), Errno>> {
    let place = place_of(name)?;
    if value.is_none() && values_if_any(co).is_null() {
        return Some(Ok(()));
    }
    let Some(values) = values(co) else { return Some(Err(Errno(libc::ENOMEM))) };
    let slot = values.wrapping_add(place);
    // SAFETY: one value a name.
    let old = unsafe { *slot };
    if !old.is_null() && value.is_some() && !overwrite {
        return Some(Ok(()));
    }
    let new = match value {
        // SAFETY: a C string.
        Some(text) => match unsafe { libc::strdup(text.as_ptr()) } {
            copy if copy.is_null() => return Some(Err(Errno(libc::ENOMEM))),
            copy => copy,
        },
        None => null_mut(),
    };
    // SAFETY: as above.
    unsafe { *slot = new };
    // SAFETY: null or from strdup.
    unsafe { libc::free(old.cast()) };
    Some(Ok(()))
}

/// Frees a coroutine's values.
pub(super) fn drop_of(extra: &Extra) {
    let Some(values) = NonNull::new(extra.variables.replace(null_mut())) else { return };
    // SAFETY: there are values, so there is a list.
    let count = unsafe { (*NAMES.load(Ordering::Acquire)).count };
    // SAFETY: one value a name, as `values` made them.
    for &value in unsafe { core::slice::from_raw_parts(values.as_ptr(), count) } {
        // SAFETY: null or from strdup.
        unsafe { libc::free(value.cast()) };
    }
    // SAFETY: from `values`, used no more.
    unsafe { heap::free(values) };
}

/// Forgets the list, for a test that needs another one. No coroutine has values.
#[cfg(any(test, fuzzing))]
pub(crate) fn forget_names() {
    let Some(list) = NonNull::new(NAMES.swap(null_mut(), Ordering::AcqRel)) else { return };
    // SAFETY: taken out above; no other thread of the test's looks.
    let Names { count, names } = unsafe { list.read() };
    for i in 0..count {
        // SAFETY: `count` names.
        let name = unsafe { *names.wrapping_add(i) };
        // SAFETY: from strdup.
        unsafe { libc::free(name.cast()) };
    }
    // SAFETY: from `alloc_array`.
    unsafe { libc::free(names.cast()) };
    // SAFETY: from `alloc`.
    unsafe { heap::free(list) };
}
