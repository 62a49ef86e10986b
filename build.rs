//! Sets the shared library's soname and compiles the one C shim: a C variadic
//! function cannot be defined in stable Rust. COLIB_PROBES=0 in the environment leaves the static probes out.

fn main() {
    println!("cargo:rerun-if-changed=src/capi/log_shim.c");
    println!("cargo:rerun-if-changed=build.rs");
    // The original's CMake build records libcolib.so.0.5; programs linked to it look for that name.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcolib.so.0.5");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,relro,-z,now");
    // Threads that used the library call it when they end: it is never unloaded under them.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-env-changed=COLIB_PROBES");
    if std::env::var_os("COLIB_PROBES").is_some_and(|wish| wish == "0") {
        println!("cargo:rustc-cfg=no_probes");
    }
    let is_aarch64 = std::env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|arch| arch == "aarch64");
    if is_aarch64 && compiler_signs_returns() {
        println!("cargo:rustc-cfg=signed_returns");
    }
    let mut shim = cc::Build::new();
    shim.file("src/capi/log_shim.c").flag_if_supported("-fvisibility=hidden").warnings(true);
    if is_aarch64 {
        shim.flag_if_supported("-mbranch-protection=standard");
    }
    shim.compile("colib_log_shim");
}

/// Whether rustc signs return addresses (-Z branch-protection=bti,pac-ret): then the assembler does so too.
fn compiler_signs_returns() -> bool {
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    flags
        .split("branch-protection=")
        .skip(1)
        .any(|wish| wish.split('\u{1f}').next().unwrap_or("").contains("pac-ret"))
}
