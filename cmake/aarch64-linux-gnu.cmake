# Builds for aarch64 Linux on another machine, with Debian's cross compilers, and runs what it tests under qemu:
#
#   cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
#
# The Rust toolchain must have the standard library for aarch64-unknown-linux-gnu: by rustup target add, or Debian's (libstd-rust-web-dev:arm64)
# with -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_RUSTC=/usr/bin/rustc: both, since that cargo calls the rustc of PATH.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(COLIB_RUST_TARGET aarch64-unknown-linux-gnu CACHE STRING "Rust's name of the machine to build for")

set(COLIB_AARCH64_ROOT /usr/aarch64-linux-gnu CACHE PATH "Where the C library for aarch64 lies, for qemu")
# (The loader takes the rest of its own C library: a machine with that of an arm64 package has another one, and a
# mixture of two hangs in pthread_create.)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L "${COLIB_AARCH64_ROOT}" -E "LD_LIBRARY_PATH=${COLIB_AARCH64_ROOT}/lib")

# Programs are this machine's; libraries and headers are not.
set(CMAKE_FIND_ROOT_PATH "${COLIB_AARCH64_ROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
