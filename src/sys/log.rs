//! One line of text for a person. Nothing is printed unless somebody asked: a handler, or LIBCO_LOG.
//!
//! | level | what | LIBCO_LOG |
//! |---|---|---|
//! | error | the library cannot do what it was asked to: no memory, no descriptor | error |
//! | warn | the program has misused it; the message ends with the caller's address | 1, warn |
//! | info | it helps itself, at a price | 2, info |
//! | debug | what comes and goes | 3, debug |
//!
//! Each level shows those above it, too. Handlers run on the stack of whoever causes the message, with no lock held.

use core::ffi::{CStr, c_char, c_int, c_long};
use core::fmt::{self, Write};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicI8, AtomicPtr, Ordering, compiler_fence};

use crate::sys::caller;
use crate::sys::errno::Errno;

/// The program's handler for messages: one text without a line end.
pub(crate) type Handler = Option<unsafe extern "C-unwind" fn(*const c_char)>;

/// As [`Handler`], with the message's level in front.
pub(crate) type Sink = Option<unsafe extern "C-unwind" fn(c_int, *const c_char)>;

/// How grave a message is. (C's CO_LOG_ERROR and so on.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i8)]
pub(crate) enum Level {
    Error = 0,
    Warn = 1,
    Info = 2,
    Debug = 3,
}

/// Below all levels: nothing is shown.
pub(crate) const OFF: i8 = -1;

static HANDLER: AtomicPtr<()> = AtomicPtr::new(null_mut());
static SINK: AtomicPtr<()> = AtomicPtr::new(null_mut());
static TO_STDERR: AtomicBool = AtomicBool::new(false);
/// The last level that is shown.
static SHOWN: AtomicI8 = AtomicI8::new(Level::Warn as i8);

const LINE: usize = 512;

/// Sends messages to `handler`, or nowhere special again with `None`.
pub(crate) fn set_handler(handler: Handler) {
    SINK.store(null_mut(), Ordering::Release);
    HANDLER.store(handler.map_or(null_mut(), |f| f as *mut ()), Ordering::Release);
}

/// As [`set_handler`], whose handler goes.
pub(crate) fn set_sink(sink: Sink) {
    HANDLER.store(null_mut(), Ordering::Release);
    SINK.store(sink.map_or(null_mut(), |f| f as *mut ()), Ordering::Release);
}

/// Shows messages of this level and the graver ones; -1: none. `EINVAL` for what is no level.
pub(crate) fn set_level(level: c_int) -> Result<(), Errno> {
    let known = i8::try_from(level).ok().filter(|level| (OFF..=Level::Debug as i8).contains(level));
    SHOWN.store(known.ok_or(Errno(libc::EINVAL))?, Ordering::Relaxed);
    Ok(())
}

/// Called once at start: what LIBCO_LOG says.
pub(crate) fn configure(value: Option<&CStr>) {
    let level = match value.map_or(&b""[..], CStr::to_bytes) {
        b"" | b"0" | b"off" => OFF,
        b"error" => Level::Error as i8,
        b"1" | b"warn" => Level::Warn as i8,
        b"2" | b"info" => Level::Info as i8,
        b"3" | b"debug" => Level::Debug as i8,
        other => return warn(format_args!("colib: LIBCO_LOG is not followed: {}", NotALevel(other))),
    };
    if level != OFF {
        SHOWN.store(level, Ordering::Relaxed);
        TO_STDERR.store(true, Ordering::Relaxed);
    }
}

/// Says what is wrong with a word.
struct NotALevel<'a>(&'a [u8]);

impl fmt::Display for NotALevel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is none of off, error, warn, info, debug, 0, 1, 2, 3", self.0.escape_ascii())
    }
}

/// Whether a message of this level would reach anybody.
pub(crate) fn wanted(level: Level) -> bool {
    level as i8 <= SHOWN.load(Ordering::Relaxed)
        && (TO_STDERR.load(Ordering::Relaxed)
            || !HANDLER.load(Ordering::Relaxed).is_null()
            || !SINK.load(Ordering::Relaxed).is_null())
}

/// Emits one message of the program's, already formatted.
pub(crate) fn emit(text: &[u8]) {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut line = Line { bytes: [0; LINE + 2], len: 0 };
    line.push(text);
    line.send(Level::Error);
}

/// Formats and emits one message; errno stays as it was. See the macros.
#[cold]
#[inline(never)]
pub(crate) fn emit_fmt(level: Level, args: fmt::Arguments<'_>) {
    if !wanted(level) {
        return;
    }
    let errno = Errno::last();
    let mut line = Line { bytes: [0; LINE + 2], len: 0 };
    line.push(b"colib: ");
    // A message that is too long is cut, never lost.
    let _ = line.write_fmt(args);
    if level == Level::Warn
        && let Some(caller) = caller::find()
    {
        let _ = write!(line, " (called from {caller})");
    }
    line.send(level);
    errno.set();
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

/// [`emit_fmt`] of a word about misuse. Whoever calls this keeps its frame meanwhile: `caller` goes by it.
#[inline(always)]
pub(crate) fn emit_misuse(args: fmt::Arguments<'_>) {
    emit_fmt(Level::Warn, args);
    // Something to do after the call: so it is not left by a jump.
    compiler_fence(Ordering::SeqCst);
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

    fn send(&mut self, level: Level) {
        let errno = Errno::last();
        let sink = SINK.load(Ordering::Acquire);
        let handler = HANDLER.load(Ordering::Acquire);
        // (The text ends in a zero byte: `bytes` has two spare ones.)
        let text = self.bytes.as_ptr().cast::<c_char>();
        if !sink.is_null() {
            // SAFETY: only `set_sink` stores here, from a function pointer of this type.
            let sink: unsafe extern "C-unwind" fn(c_int, *const c_char) = unsafe { transmute(sink) };
            // SAFETY: a string, as the handler's type says.
            unsafe { sink(level as c_int, text) };
        } else if !handler.is_null() {
            // SAFETY: only `set_handler` stores here, from a function pointer of this type.
            let handler: unsafe extern "C-unwind" fn(*const c_char) = unsafe { transmute(handler) };
            // SAFETY: as above.
            unsafe { handler(text) };
        } else if TO_STDERR.load(Ordering::Relaxed) {
            self.print();
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

/// The library cannot do what it was asked to. Formatted as by `format!`, as all of these.
macro_rules! error {
    ($($arg:tt)*) => { $crate::sys::log::emit_fmt($crate::sys::log::Level::Error, format_args!($($arg)*)) };
}

/// The program has misused the library. The function that says so is in one of the lists of `sys::caller`.
macro_rules! misuse {
    ($($arg:tt)*) => { $crate::sys::log::emit_misuse(format_args!($($arg)*)) };
}

/// The library helps itself.
macro_rules! info {
    ($($arg:tt)*) => { $crate::sys::log::emit_fmt($crate::sys::log::Level::Info, format_args!($($arg)*)) };
}

/// Something comes or goes.
macro_rules! debug {
    ($($arg:tt)*) => { $crate::sys::log::emit_fmt($crate::sys::log::Level::Debug, format_args!($($arg)*)) };
}

pub(crate) use {debug, error, info, misuse};
