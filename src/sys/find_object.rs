//! What gcc's unwinder takes for granted if it was built beside glibc, as the one that musl-gcc takes was: the function
//! `_dl_find_object`, which musl does not have, and that of the functions for threads all are there or none.

#![expect(unreachable_pub, reason = "exported under its symbol name, not by path")]

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

unsafe extern "C" {
    fn pthread_once();
    fn pthread_mutex_lock();
    fn pthread_mutex_unlock();
    fn pthread_getspecific();
    fn pthread_setspecific();
}

/// The unwinder's references to these are weak, and bring nothing into a program; but it calls them all where there is
/// pthread_key_create, which the library uses.
#[used]
static ALL_OR_NONE: [unsafe extern "C" fn(); 5] =
    [pthread_once, pthread_mutex_lock, pthread_mutex_unlock, pthread_getspecific, pthread_setspecific];

/// `struct dl_find_object` of glibc's dlfcn.h.
#[repr(C)]
pub struct Object {
    flags: u64,
    start: *mut c_void,
    end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *const c_void,
    reserved: [u64; 7],
}

struct Search {
    address: usize,
    found: Option<Object>,
}

/// Finds the loaded object that `address` lies in: 0, or -1 if there is none with tables.
///
/// # Safety
/// `result` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _dl_find_object(address: *mut c_void, result: *mut Object) -> c_int {
    let mut search = Search { address: address.addr(), found: None };
    // SAFETY: `look` is what it asks for, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    let Some(object) = search.found else { return -1 };
    // SAFETY: as the caller vouches.
    unsafe { result.write(object) };
    0
}

unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: the C library's record of a loaded object.
    let info = unsafe { &*info };
    // SAFETY: what `_dl_find_object` passed, which nobody else uses meanwhile.
    let search = unsafe { &mut *search.cast::<Search>() };
    let at = |address: u64| (info.dlpi_addr as usize).wrapping_add(address as usize);
    let (mut range, mut tables) = (None, None);
    for i in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: `dlpi_phnum` of them.
        let part = unsafe { &*info.dlpi_phdr.wrapping_add(i) };
        let (start, size) = (at(part.p_vaddr), part.p_memsz as usize);
        match part.p_type {
            libc::PT_LOAD if search.address.wrapping_sub(start) < size => range = Some((start, start + size)),
            libc::PT_GNU_EH_FRAME => tables = Some(start),
            _ => {}
        }
    }
    let Some((start, end)) = range else { return 0 };
    search.found = tables.map(|tables| Object {
        flags: 0,
        start: start as *mut c_void,
        end: end as *mut c_void,
        link_map: null_mut(),
        eh_frame: tables as *const c_void,
        reserved: [0; 7],
    });
    1
}
