//! Another library in Rust, with a standard library of its own, for the same program.

/// Adds one, by way of what brings in allocation, formatting, threads and unwinding.
#[unsafe(no_mangle)]
pub extern "C" fn other_library(n: i32) -> i32 {
    let text = std::thread::spawn(move || format!("{}", n + 1)).join().unwrap_or_default();
    std::panic::catch_unwind(|| text.parse().unwrap()).unwrap_or(0)
}
