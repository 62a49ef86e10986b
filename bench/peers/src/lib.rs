//! corosensei, as its users have it: switches inlined into Rust loops, stacks reused.

use std::ffi::c_void;
use std::ptr::null_mut;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};

const STACK: usize = 128 * 1024;

/// Resumes one coroutine, which suspends itself at once, `rounds` times.
#[unsafe(no_mangle)]
pub extern "C" fn peer_corosensei_switch(rounds: u64) {
    let mut co = Coroutine::new(move |yielder, ()| {
        for _ in 0..rounds {
            yielder.suspend(());
        }
    });
    for _ in 0..rounds {
        match co.resume(()) {
            CoroutineResult::Yield(()) => {}
            CoroutineResult::Return(()) => unreachable!("it suspends as often as it is resumed"),
        }
    }
    while !co.done() {
        co.resume(());
    }
}

/// Makes a coroutine on one and the same stack and runs it to its end, `rounds` times. It calls a
/// function that is known only when it runs, as every coroutine of a C library does.
#[unsafe(no_mangle)]
pub extern "C" fn peer_corosensei_create(rounds: u64, routine: extern "C" fn(*mut c_void) -> *mut c_void) {
    let mut stack = DefaultStack::new(STACK).expect("memory for a stack");
    for _ in 0..rounds {
        let mut co = Coroutine::<(), (), (), _>::with_stack(stack, move |_, ()| {
            routine(null_mut());
        });
        let _: CoroutineResult<(), ()> = co.resume(());
        stack = co.into_stack();
    }
}
