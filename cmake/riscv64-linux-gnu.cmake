# Builds for riscv64 Linux on another machine, with Debian's cross compilers, and runs what it tests under qemu:
#
#   RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind \
#       cmake -S . -B build/riscv64 -DCMAKE_TOOLCHAIN_FILE=cmake/riscv64-linux-gnu.cmake
#
# The two variables are for cargo, and for `cmake --build` too: it builds the standard library from its sources (rust-src,
# or Debian's rust-web-src with -DCOLIB_CARGO=/usr/bin/cargo -DCOLIB_RUSTC=/usr/bin/rustc). A toolchain that has the one for riscv64gc-unknown-linux-gnu needs neither.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR riscv64)
set(CMAKE_C_COMPILER riscv64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER riscv64-linux-gnu-g++)
set(COLIB_RUST_TARGET riscv64gc-unknown-linux-gnu CACHE STRING "Rust's name of the machine to build for")

set(COLIB_RISCV64_ROOT /usr/riscv64-linux-gnu CACHE PATH "Where the C library for riscv64 lies, for qemu")
# (The loader takes that C library alone, whatever else this machine has: see aarch64-linux-gnu.cmake.)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-riscv64 -L "${COLIB_RISCV64_ROOT}" -E "LD_LIBRARY_PATH=${COLIB_RISCV64_ROOT}/lib")

# Programs are this machine's; libraries and headers are not.
set(CMAKE_FIND_ROOT_PATH "${COLIB_RISCV64_ROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
