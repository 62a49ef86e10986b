//! What depends on the processor: the switch, a coroutine's first frame, the thread slot.
//!
//! One file per instruction set, all with the same shape; `probes` serves them all. Called by `routine` (switch, frames),
//! `sys::thread` (the slot) and `capi::coctx` (the original's own register layout).

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;

mod probes;
pub(crate) use probes::{probe, probe_note};

#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "riscv64")]
pub(crate) use riscv64::*;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86_64")))]
compile_error!("colib has no port for this processor yet: see src/arch/x86_64.rs for what one supplies");
