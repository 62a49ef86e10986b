//! getenv, setenv, unsetenv: the names of co_set_env_list are private to a coroutine with hooks on.

use core::ffi::{CStr, c_char, c_int};

use super::choice::{Hook, active_for};
use super::{active, real, same_signature};
use crate::routine::{Co, environ};

same_signature!(getenv: fn(*const c_char) -> *mut c_char);
same_signature!(setenv: fn(*const c_char, *const c_char, c_int) -> c_int);
same_signature!(unsetenv: fn(*const c_char) -> c_int);

/// The running coroutine and the name as text, if private names are in play.
///
/// # Safety
/// `name` is NULL or a string.
#[inline]
unsafe fn private<'a>(name: *const c_char) -> Option<(Co, &'a CStr)> {
    if name.is_null() {
        return None;
    }
    let env = active()?;
    // SAFETY: as the caller vouches.
    Some((Co::of(env.running()), unsafe { CStr::from_ptr(name) }))
}

/// `char *getenv(const char *name);`
///
/// # Safety
/// As getenv(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getenv(name: *const c_char) -> *mut c_char {
    if environ::in_use() {
        // SAFETY: the caller's argument.
        return unsafe { getenv_hooked(name) };
    }
    // SAFETY: the caller's argument.
    unsafe { (real::get().getenv)(name) }
}

/// # Safety
/// As getenv(3).
#[inline(never)]
unsafe fn getenv_hooked(name: *const c_char) -> *mut c_char {
    // SAFETY: the caller's argument.
    if let Some((co, text)) = unsafe { private(name) }
        && let Some(value) = environ::get(co, text)
    {
        return value;
    }
    // SAFETY: the caller's argument.
    unsafe { (real::get().getenv)(name) }
}

/// `char *secure_getenv(const char *name);` In a program that was given more rights than its user has, NULL,
/// as the C library's.
///
/// # Safety
/// As secure_getenv(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn secure_getenv(name: *const c_char) -> *mut c_char {
    if environ::in_use() && active_for(Hook::SecureGetenv).is_some() && !is_secure() {
        // SAFETY: the caller's argument.
        return unsafe { getenv_hooked(name) };
    }
    // SAFETY: the caller's argument.
    unsafe { (real::get().secure_getenv)(name) }
}

fn is_secure() -> bool {
    // SAFETY: asks what the kernel said of this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// `int setenv(const char *name, const char *value, int overwrite);`
///
/// # Safety
/// As setenv(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int {
    if environ::in_use() {
        // SAFETY: the caller's arguments.
        return unsafe { setenv_hooked(name, value, overwrite) };
    }
    // SAFETY: the caller's arguments.
    unsafe { (real::get().setenv)(name, value, overwrite) }
}

/// # Safety
/// As setenv(3).
#[inline(never)]
unsafe fn setenv_hooked(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int {
    // SAFETY: the caller's argument.
    if let Some((co, text)) = unsafe { private(name) } {
        // SAFETY: not NULL: the caller's string.
        let value = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) });
        match environ::set(co, text, value, overwrite != 0) {
            Some(Ok(())) => return 0,
            Some(Err(error)) => {
                error.set();
                return -1;
            }
            None => {}
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { (real::get().setenv)(name, value, overwrite) }
}

/// `int unsetenv(const char *name);`
///
/// # Safety
/// As unsetenv(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn unsetenv(name: *const c_char) -> c_int {
    if environ::in_use() {
        // SAFETY: the caller's argument.
        return unsafe { unsetenv_hooked(name) };
    }
    // SAFETY: the caller's argument.
    unsafe { (real::get().unsetenv)(name) }
}

/// # Safety
/// As unsetenv(3).
#[inline(never)]
unsafe fn unsetenv_hooked(name: *const c_char) -> c_int {
    // SAFETY: the caller's argument.
    if let Some((co, text)) = unsafe { private(name) }
        && environ::set(co, text, None, true).is_some()
    {
        return 0;
    }
    // SAFETY: the caller's argument.
    unsafe { (real::get().unsetenv)(name) }
}
