//! Which hooks are on: every hook's name, and the words of LIBCO_HOOKS and co_set_hooks.
//!
//! The original's own hooks are always there (co_enable_hook_sys switches them on in a coroutine). Those
//! that we add have a bit each, for the whole process. A hook asks [`active_for`]: is its bit set, and is
//! there a running coroutine with hooks on?

use core::sync::atomic::{AtomicU64, Ordering};

use super::active;
use crate::routine::Env;
use crate::sys::caller::Function;
use crate::sys::errno::Errno;

/// When a hook is on, in a coroutine that called co_enable_hook_sys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// As in the original: always.
    Libco,
    /// Unless the words say otherwise.
    Default,
    /// Only if the words say so.
    Added,
    /// Never waits: does what libc's does, and the hooks take note.
    Noticed,
}

/// One line of docs/HOOKS.md.
pub struct Entry {
    /// The function, and its word.
    pub name: &'static str,
    /// Other names of libc's for the same, which go with it.
    pub also: &'static [&'static str],
    /// When it is on.
    pub set: Set,
    /// What it does.
    pub what: &'static str,
}

macro_rules! hooks {
    ($($hook:ident: $name:literal $([$($also:literal),*])? $set:ident, $what:literal;)*) => {
        /// A hook that can be chosen, or a function that is always one.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[expect(dead_code, reason = "those of the original are never asked for")]
        pub(crate) enum Hook {
            $($hook,)*
        }

        /// Every function of the C library that the library defines.
        pub const ENTRIES: &[Entry] = &[$(Entry { name: $name, also: &[$($($also),*)?], set: Set::$set, what: $what },)*];
    };
}

hooks! {
    Socket: "socket" Libco, "makes the socket known to the hooks, non-blocking underneath";
    Connect: "connect" ["__connect"] Libco, "waits until connected: SO_SNDTIMEO, or 75 s";
    Read: "read" ["__read", "__read_chk"] Libco, "waits for input, SO_RCVTIMEO or 1 s";
    Recv: "recv" ["__recv_chk"] Libco, "as read";
    Recvfrom: "recvfrom" ["__recvfrom_chk"] Libco, "as read";
    Write: "write" ["__write"] Libco, "goes on until all is written; each wait SO_SNDTIMEO or 1 s";
    Send: "send" ["__send"] Libco, "as write";
    Sendto: "sendto" Libco, "one try, one wait, one more try";
    Poll: "poll" ["__poll", "__poll_chk"] Libco, "waits for any of the descriptors, or the time";
    Close: "close" ["__close"] Libco, "wakes who waits for the number, in every thread";
    Setsockopt: "setsockopt" Libco, "takes note of SO_RCVTIMEO and SO_SNDTIMEO";
    Fcntl: "fcntl" ["__fcntl", "fcntl64"] Libco, "hides the O_NONBLOCK underneath, keeps the program's own; a dup shares what is known";
    Getenv: "getenv" Libco, "the coroutine's own value of a name given to co_set_env_list";
    Setenv: "setenv" Libco, "as getenv";
    Unsetenv: "unsetenv" Libco, "as getenv";
    Gethostbyname: "gethostbyname" Libco, "on a helper thread; a result of its own in each coroutine";
    GethostbynameR: "gethostbyname_r" Libco, "on a helper thread";
    ResState: "__res_state" Libco, "one of its own in each coroutine";

    Getaddrinfo: "getaddrinfo" Default, "on a helper thread; a literal address at once";
    Getnameinfo: "getnameinfo" Default, "on a helper thread, unless all is asked for as numbers";
    Gethostbyname2: "gethostbyname2" Default, "as gethostbyname";
    Gethostbyname2R: "gethostbyname2_r" Default, "as gethostbyname_r";
    Gethostbyaddr: "gethostbyaddr" Default, "as gethostbyname";
    GethostbyaddrR: "gethostbyaddr_r" Default, "as gethostbyname_r";
    SecureGetenv: "secure_getenv" Default, "as getenv";

    Accept: "accept" Added, "waits on a listener that the hooks know; the new socket is known to them, too";
    Accept4: "accept4" Added, "as accept";
    Readv: "readv" Added, "as read";
    Writev: "writev" Added, "as write";
    Recvmsg: "recvmsg" Added, "as recv";
    Recvmmsg: "recvmmsg" Added, "waits for each message, or with MSG_WAITFORONE for the first";
    Sendmsg: "sendmsg" Added, "as send";
    Sendmmsg: "sendmmsg" Added, "as send, message by message";
    Sendfile: "sendfile" ["sendfile64"] Added, "waits for room at the receiving socket or pipe, until all is sent";
    Socketpair: "socketpair" Added, "makes both known to the hooks";
    Pipe: "pipe" Added, "makes both ends known to the hooks";
    Pipe2: "pipe2" Added, "as pipe";
    Eventfd: "eventfd" Added, "makes it known to the hooks";
    TimerfdCreate: "timerfd_create" Added, "makes it known to the hooks";

    Select: "select" ["__select"] Added, "waits for any of the descriptors, or the time";
    Pselect: "pselect" Added, "as select";
    Ppoll: "ppoll" ["__ppoll_chk"] Added, "as poll";
    EpollWait: "epoll_wait" Added, "waits for the program's own epoll descriptor";
    EpollPwait: "epoll_pwait" Added, "as epoll_wait";
    EpollPwait2: "epoll_pwait2" Added, "as epoll_wait";

    Sleep: "sleep" Added, "lets the others run meanwhile";
    Usleep: "usleep" Added, "as sleep";
    Nanosleep: "nanosleep" ["__nanosleep"] Added, "as sleep";
    ClockNanosleep: "clock_nanosleep" ["__clock_nanosleep"] Added, "as sleep; by CLOCK_REALTIME, MONOTONIC, BOOTTIME and TAI, other clocks as the C library does";
    ThrdSleep: "thrd_sleep" Added, "as sleep";

    Dup: "dup" Noticed, "the new number shares what is known of the file";
    Dup2: "dup2" Noticed, "as dup; who waits for the old number wakes";
    Dup3: "dup3" Noticed, "as dup2";
    CloseRange: "close_range" Noticed, "as close, for each";
    Closefrom: "closefrom" Noticed, "as close, for each";
    Fclose: "fclose" Noticed, "as close, for the stream's number";
    Shutdown: "shutdown" Noticed, "wakes who waits there, in every thread";
    Ioctl: "ioctl" Noticed, "FIONBIO: as fcntl's F_SETFL; all other requests are libc's";
    Getsockopt: "getsockopt" Noticed, "SO_RCVTIMEO and SO_SNDTIMEO: what co_set_timeout set";
}

/// What is on unless somebody chooses.
const fn default_bits() -> u64 {
    bits_of(false)
}

const fn bits_of(all: bool) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < ENTRIES.len() {
        if matches!(ENTRIES[i].set, Set::Default) || (all && matches!(ENTRIES[i].set, Set::Added)) {
            bits |= 1 << i;
        }
        i += 1;
    }
    bits
}

/// The original's ways where ours are better.
const QUIRKS: u64 = 1 << 63;

const _: () = assert!(ENTRIES.len() < 63, "one bit each, and one for the quirks");

static ON: AtomicU64 = AtomicU64::new(default_bits());

/// The environment, if the running coroutine has hooks on and this one is chosen.
#[inline(always)]
pub(super) fn active_for(hook: Hook) -> Option<&'static Env> {
    active().filter(|_| ON.load(Ordering::Relaxed) & 1 << hook as u8 != 0)
}

/// Whether a time-out of zero ends a read at once, as in the original.
pub(super) fn as_libco() -> bool {
    ON.load(Ordering::Relaxed) & QUIRKS != 0
}

/// Chooses by words: `default`, `all`, `libco`, then names, each with a `-` to leave it out, separated by
/// commas. What is not mentioned is as in `default`. The word that makes no sense, if one does not: then
/// nothing has changed.
pub(crate) fn choose(words: &[u8]) -> Result<(), &[u8]> {
    let mut on = default_bits();
    for word in words.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        match word {
            b"" => {}
            b"default" => on = default_bits(),
            b"all" => on = bits_of(true),
            b"libco" => on = QUIRKS,
            _ => {
                let (name, wanted) = match word.strip_prefix(b"-") {
                    Some(name) => (name, false),
                    None => (word, true),
                };
                let bit = bit_of(name).ok_or(word)?;
                on = if wanted { on | bit } else { on & !bit };
            }
        }
    }
    ON.store(on, Ordering::Relaxed);
    Ok(())
}

/// The bit of a hook that can be chosen.
fn bit_of(name: &[u8]) -> Option<u64> {
    let is = |entry: &Entry| {
        entry.name.as_bytes() == name || entry.also.iter().any(|also| also.as_bytes() == name)
    };
    let at = ENTRIES.iter().position(is)?;
    matches!(ENTRIES[at].set, Set::Default | Set::Added).then_some(1 << at)
}

/// See `sys::caller`.
pub(crate) static DOORS: &[Function] = &[Function(set as *const ())];

/// co_set_hooks. `EINVAL` and a message if a word makes no sense.
pub(crate) fn set(words: &[u8]) -> Result<(), Errno> {
    choose(words).map_err(|word| {
        crate::sys::log::misuse!("co_set_hooks: {}", Meaningless(word));
        Errno(libc::EINVAL)
    })
}

/// LIBCO_HOOKS, once, when the library is loaded.
pub(crate) fn configure(words: &[u8]) {
    if let Err(word) = choose(words) {
        crate::sys::log::warn(format_args!("colib: LIBCO_HOOKS is not followed: {}", Meaningless(word)));
    }
}

struct Meaningless<'a>(&'a [u8]);

impl core::fmt::Display for Meaningless<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = self.0.strip_prefix(b"-").unwrap_or(self.0);
        let why = match ENTRIES.iter().any(|entry| entry.name.as_bytes() == name) {
            true => "is always there",
            false => "is neither a hook nor default, all or libco",
        };
        write!(f, "\"{}\" {why} (docs/HOOKS.md has the words)", self.0.escape_ascii())
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../fuzzing/choice.rs"]
pub(crate) mod fuzzing;
