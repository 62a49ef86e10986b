//! One line of text for a person. Nothing is printed unless somebody asked: a handler, or LIBCO_LOG=1.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::fmt::{self, Write};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The program's handler for messages: one text without a line end.
pub(crate) type Handler = Option<unsafe extern "C-unwind" fn(*const c_char)>;

static HANDLER: AtomicPtr<()> = AtomicPtr::new(null_mut());
static TO_STDERR: AtomicBool = AtomicBool::new(false);

const LINE: usize = 512;

/// Sends messages to `handler`, or nowhere special again with `None`.
pub(crate) fn set_handler(handler: Handler) {
    let raw = handler.map_or(null_mut(), |f| f as *mut ());
    HANDLER.store(raw, Ordering::Release);
}

/// Called once at start: LIBCO_LOG=1 sends messages to standard error.
pub(crate) fn configure(value: Option<&CStr>) {
    TO_STDERR.store(value.is_some_and(|v| v.to_bytes() == b"1"), Ordering::Relaxed);
}

/// Whether a message would reach anybody.
pub(crate) fn wanted() -> bool {
    TO_STDERR.load(Ordering::Relaxed) || !HANDLER.load(Ordering::Relaxed).is_null()
}

/// Emits one message of the program's, already formatted.
pub(crate) fn emit(text: &[u8]) {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut line = Line { bytes: [0; LINE + 2], len: 0 };
    line.push(text);
    line.send();
}

/// Formats and emits one message; errno stays as it was. See the `log!` macro.
#[cold]
pub(crate) fn emit_fmt(args: fmt::Arguments<'_>) {
    if !wanted() {
        return;
    }
    let mut line = Line { bytes: [0; LINE + 2], len: 0 };
    line.push(b"colib: ");
    // A message that is too long is cut, never lost.
    let _ = line.write_fmt(args);
    line.send();
}

/// Prints a last message on standard error, whether or not anybody asked, and aborts.
#[cold]
pub(crate) fn fatal(args: fmt::Arguments<'_>) -> ! {
    let mut line = Line { bytes: [0; LINE + 2], len: 0 };
    let _ = line.write_fmt(args);
    line.print();
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// Prints a message on standard error, whether or not anybody asked: what the program's user got wrong.
#[cold]
pub(crate) fn warn(args: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE + 2], len: 0 };
    let _ = line.write_fmt(args);
    line.print();
}

struct Line {
    bytes: [u8; LINE + 2],
    len: usize,
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        let fits = text.len().min(LINE - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text[..fits]);
        self.len += fits;
    }

    fn send(&mut self) {
        let errno = crate::sys::errno::Errno::last();
        let handler = HANDLER.load(Ordering::Acquire);
        if handler.is_null() {
            if TO_STDERR.load(Ordering::Relaxed) {
                self.print();
            }
        } else {
            // SAFETY: only `set_handler` stores here, from a function pointer of this type.
            let handler: unsafe extern "C-unwind" fn(*const c_char) = unsafe { transmute(handler) };
            // SAFETY: the text ends in a zero byte: `bytes` has two spare ones.
            unsafe { handler(self.bytes.as_ptr().cast()) };
        }
        errno.set();
    }

    fn print(&mut self) {
        self.bytes[self.len] = b'\n';
        let stderr: c_int = 2;
        // SAFETY: writes `len` + 1 initialised bytes, past our own hooks.
        unsafe { libc::syscall(libc::SYS_write, c_long::from(stderr), self.bytes.as_ptr(), self.len + 1) };
        self.bytes[self.len] = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Logs one message, formatted as by `format!`.
macro_rules! log {
    ($($arg:tt)*) => { $crate::sys::log::emit_fmt(format_args!($($arg)*)) };
}
pub(crate) use log;
