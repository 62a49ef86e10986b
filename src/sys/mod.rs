//! The one door to the kernel and the C runtime. -1 and errno become `Result` here and nowhere else.
//!
//! The library's own calls of what is hooked are raw system calls, never the exported hooks.

pub(crate) mod caller;
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod errno;
pub(crate) mod exceptions;
pub(crate) mod fault;
#[cfg(target_env = "musl")]
mod find_object;
pub(crate) mod heap;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod maps;
pub(crate) mod pages;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod thread;
pub(crate) mod tools;
