# colib: builds the libraries and the examples, tests them, shows them under load.
#
#   make             lib/libcolib.a, solib/libcolib.so and the example_* programs in this folder
#   make test        every test, with what they need installed first
#   make test-memcheck, test-helgrind, test-address, test-thread    the C++ tests under valgrind and gcc's sanitizers
#   make test-aarch64    the C++ tests for aarch64, under qemu
#   make test-riscv64    the same for riscv64
#   make test-musl       fully static programs on musl
#   make run         the HTTP and the echo server under load
#   make bench       the benchmarks (about five minutes): table, plots and a page in build/bench/results;
#                    BENCH_PEER=PREFIX adds a library with libco's headers and libcolib.a under PREFIX
#   make install     into $(DESTDIR)$(PREFIX); make uninstall takes it out again
#   make headers     rewrites include/ from the Rust source
#   make docs-table  rewrites the tables of symbols and hooks in docs/COMPAT.md and docs/HOOKS.md
#   make million     a million TCP connections; make ten-million: as many suspended coroutines
#   make bench-docs  make bench, and rewrites what docs/PERFORMANCE.md says of it
#   make bench-profile  where an echo server's time goes, beside one on raw epoll
#   make soak        everything at random, checked by a model; MINUTES=10, SEED= (a random one), THREADS=3, SHARED=1
#                    for the shared library
#   make lint        formatting and clippy
#   make audit       licences, sources and advisories of the crates (needs cargo-deny, and the network)
#   make fuzz        new inputs for the fuzzer's targets: SECONDS=60 for each, TARGET=name for one (docs/TESTING.md)
#   make coverage    which lines of src/ the tests reach: a table, and build/coverage/never-reached.txt
#
# CC, CXX, CFLAGS, CXXFLAGS, LDFLAGS, CARGO, CARGO_TARGET_DIR, CARGO_BUILD_TARGET, PREFIX, LIBDIR,
# INCLUDEDIR, DATADIR and DESTDIR are honoured. (Another processor also wants RUSTC: docs/PORTING.md.)

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
CFLAGS   ?= -O2 -g
CXXFLAGS ?= -O2 -g
CARGO    ?= $(or $(shell command -v cargo),$(wildcard $(HOME)/.cargo/bin/cargo),cargo)
CMAKE    ?= cmake

PREFIX     ?= /usr/local
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR     ?= $(PREFIX)/lib
DATADIR    ?= $(PREFIX)/share
DESTDIR    ?=

VERSION := $(shell sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The name that programs linked to the original's shared library look for. It belongs to the ABI and
# does not follow VERSION.
SONAME  := libcolib.so.0.5
# What a static link needs beside the library; the compiler adds libc and libgcc.
LINKS   := -lpthread -ldl -lrt -lutil -lm

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE    := $(TARGET_DIR)/$(if $(CARGO_BUILD_TARGET),$(CARGO_BUILD_TARGET)/)release
# Cargo runs its own jobs, and takes make's flags for those of a parent that it can ask for slots.
RUN_CARGO  := env -u MAKEFLAGS -u MFLAGS $(CARGO)
# For another machine CC links as well, and compiles what is in C.
ifneq ($(CARGO_BUILD_TARGET),)
TRIPLE := $(subst -,_,$(CARGO_BUILD_TARGET))
LINKER := CARGO_TARGET_$(shell echo '$(TRIPLE)' | tr a-z A-Z)_LINKER
export CC_$(TRIPLE) ?= $(CC)
export $(LINKER) ?= $(CC)
endif
BUILD_DIR  ?= build
JOBS       ?= $(shell nproc)

# The distribution's, whose matplotlib scripts/install-deps.sh installs.
PYTHON     ?= /usr/bin/python3
BENCH_PEER ?=
BENCH_ARGS ?=

HEADERS  := $(wildcard include/*.h)
C_EXAMPLES   := $(patsubst c_examples/%.c,%,$(wildcard c_examples/*.c))
CXX_EXAMPLES := $(patsubst c_examples/%.cpp,%,$(wildcard c_examples/*.cpp))
EXAMPLES     := $(C_EXAMPLES) $(CXX_EXAMPLES)
EXAMPLE_DEPS := lib/libcolib.a $(HEADERS) $(wildcard c_examples/*.h)

.PHONY: all lib examples headers docs-table deps test test-aarch64 test-riscv64 test-musl test-memcheck test-helgrind test-address test-thread run install uninstall clean \
	fmt-check lint cargo-build bench bench-docs bench-profile million ten-million fuzz coverage soak audit
.DELETE_ON_ERROR:
.SUFFIXES:

all: lib examples

lib: lib/libcolib.a solib/$(SONAME) solib/libcolib.so

examples: $(EXAMPLES)

cargo-build:
	@command -v $(CARGO) >/dev/null || { echo "make: colib is written in Rust and needs cargo: see https://rustup.rs, or set CARGO" >&2; exit 1; }
	$(RUN_CARGO) build --release --lib

# Replaced by a rename, so that programs that run on the old file keep it; left alone when nothing
# changed, so that nothing is linked again.
define replace
@mkdir -p $(@D)
@cmp -s $(1) $@ || { cp $(1) $@.$$$$.tmp && mv -f $@.$$$$.tmp $@ && echo "wrote $@"; }
endef

lib/libcolib.a: cargo-build
	$(call replace,$(RELEASE)/libcolib.a)

solib/$(SONAME): cargo-build
	$(call replace,$(RELEASE)/libcolib.so)

solib/libcolib.so: solib/$(SONAME)
	@ln -sfn $(SONAME) $@

$(C_EXAMPLES): %: c_examples/%.c $(EXAMPLE_DEPS)
	$(CC) -std=c11 -Wall -Wextra -Iinclude $(CPPFLAGS) $(CFLAGS) $< -o $@ $(LDFLAGS) lib/libcolib.a $(LINKS)

$(CXX_EXAMPLES): %: c_examples/%.cpp $(EXAMPLE_DEPS)
	$(CXX) -Wall -Wextra -Iinclude $(CPPFLAGS) $(CXXFLAGS) $< -o $@ $(LDFLAGS) lib/libcolib.a $(LINKS)

headers:
	COLIB_WRITE_HEADERS=1 $(RUN_CARGO) test --test headers

docs-table:
	COLIB_WRITE_DOCS=1 $(RUN_CARGO) test --test compat_doc --test hooks_doc

deps:
	@CARGO='$(CARGO)' scripts/install-deps.sh test

test: deps
	@CARGO='$(CARGO)' CMAKE='$(CMAKE)' BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/test.sh

# Under tools that watch memory and threads; PATTERN=... chooses tests by a part of their names.
test-memcheck test-helgrind: deps
	@$(CMAKE) -S . -B '$(BUILD_DIR)' -DCMAKE_BUILD_TYPE=Release -DCOLIB_BUILD_TESTS=ON -DCOLIB_CARGO_TARGET_DIR='$(abspath $(TARGET_DIR))' >/dev/null
	@$(CMAKE) --build '$(BUILD_DIR)' -j$(JOBS)
	@BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/watch-tests.sh $(@:test-%=%) '$(PATTERN)'

test-address test-thread: deps
	@CARGO='$(CARGO)' CMAKE='$(CMAKE)' BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/watch-tests.sh $(@:test-%=%) '$(PATTERN)'

# (Of the distribution's toolchain: it has a standard library for that processor.)
test-aarch64: deps
	@scripts/install-deps.sh aarch64
	@CMAKE='$(CMAKE)' BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/test-aarch64.sh '$(PATTERN)'

# (And of the distribution's sources of the standard library.)
test-riscv64: deps
	@scripts/install-deps.sh riscv64
	@CMAKE='$(CMAKE)' BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/test-riscv64.sh '$(PATTERN)'

test-musl:
	@CARGO='$(CARGO)' scripts/install-deps.sh musl
	@BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/test-musl.sh

run:
	@CARGO='$(CARGO)' scripts/install-deps.sh run
	@$(MAKE) --no-print-directory all
	@scripts/run-demo.sh

bench bench-docs: lib
	@CARGO='$(CARGO)' scripts/install-deps.sh bench
	@$(MAKE) --no-print-directory -C bench CARGO='$(CARGO)' BENCH_PEER='$(abspath $(BENCH_PEER))'
	@BENCH_PEER='$(abspath $(BENCH_PEER))' $(PYTHON) bench/run.py $(if $(filter bench-docs,$@),--docs) $(BENCH_ARGS)

bench-profile: lib
	@CARGO='$(CARGO)' scripts/install-deps.sh bench
	@$(MAKE) --no-print-directory -C bench CARGO='$(CARGO)'
	@for connections in 50 1000; do for server in "echo_co plain" echo_epoll; do \
		$(PYTHON) bench/servers/echo_profile.py $$connections 4 $$server || exit 1; done; done

million ten-million: lib
	@$(MAKE) --no-print-directory -C bench/scale $@

SECONDS ?= 60
fuzz:
	@CARGO='$(CARGO)' scripts/install-deps.sh build
	@CARGO='$(CARGO)' BUILD_DIR='$(BUILD_DIR)' scripts/fuzz.sh '$(SECONDS)' $(TARGET)

coverage: deps
	@CARGO='$(CARGO)' scripts/install-deps.sh coverage
	@CARGO='$(CARGO)' CMAKE='$(CMAKE)' BUILD_DIR='$(BUILD_DIR)' JOBS='$(JOBS)' scripts/coverage.sh

MINUTES ?= 10
THREADS ?= 3

soak: lib
	@$(MAKE) --no-print-directory -C soak OUT='$(abspath $(BUILD_DIR))/soak'
	$(BUILD_DIR)/soak/soak_$(if $(SHARED),shared,static) -m $(MINUTES) -t $(THREADS) $(if $(SEED),-s $(SEED))

fmt-check:
	$(RUN_CARGO) fmt --check

audit:
	@command -v cargo-deny >/dev/null || { echo "make audit: needs cargo-deny: cargo install cargo-deny --locked" >&2; exit 1; }
	$(RUN_CARGO) deny --all-features check $(AUDIT)

lint: fmt-check
	$(RUN_CARGO) clippy --release --all-targets -- -D warnings

# Where gdb looks for what belongs to the library: beside it, and in the folder it trusts.
GDB_SCRIPTS := $(addsuffix /$(SONAME)-gdb.py,$(LIBDIR) $(DATADIR)/gdb/auto-load$(LIBDIR))

INSTALLED := $(addprefix $(INCLUDEDIR)/,$(notdir $(HEADERS))) \
	$(addprefix $(LIBDIR)/,libcolib.a $(SONAME) libcolib.so pkgconfig/colib.pc pkgconfig/colib-static.pc \
	cmake/libco/libcoConfig.cmake cmake/libco/libcoConfigVersion.cmake) $(GDB_SCRIPTS)

# The templates are those of CMakeLists.txt, and so is the result.
space := $() $()
# (As CMake calls it; the compiler's name of the machine begins with it.)
PROCESSOR = $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
fill = sed -e 's|@COLIB_PROCESSOR@|$(PROCESSOR)|g' -e 's|@COLIB_VERSION@|$(VERSION)|g' -e 's|@COLIB_SONAME@|$(SONAME)|g' \
	-e 's|@COLIB_INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@COLIB_LIBDIR@|$(LIBDIR)|g' \
	-e 's|@COLIB_LIBDIR_TO_INCLUDEDIR@|$(shell realpath -ms --relative-to=$(LIBDIR) $(INCLUDEDIR))|g' \
	-e 's|@COLIB_LINKS@|$(LINKS)|g' \
	-e 's|@COLIB_LINK_LIBRARIES@|$(subst $(space),;,$(strip $(patsubst -l%,%,$(LINKS))))|g'

install: lib
	@case '$(DESTDIR)$(INCLUDEDIR)$(LIBDIR)$(DATADIR)' in *" "*) echo "make install: a path with a space cannot be used" >&2; exit 1;; esac
	install -d $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(LIBDIR)/cmake/libco
	install -m 644 $(HEADERS) $(DESTDIR)$(INCLUDEDIR)
	install -m 644 lib/libcolib.a $(DESTDIR)$(LIBDIR)
	install -m 755 solib/$(SONAME) $(DESTDIR)$(LIBDIR)
	ln -sfn $(SONAME) $(DESTDIR)$(LIBDIR)/libcolib.so
	for script in $(GDB_SCRIPTS); do install -D -m 644 scripts/gdb/colib-gdb.py $(DESTDIR)$$script || exit 1; done
	$(fill) cmake/colib.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/colib.pc
	$(fill) cmake/colib-static.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/colib-static.pc
	$(fill) cmake/libcoConfig.cmake.in > $(DESTDIR)$(LIBDIR)/cmake/libco/libcoConfig.cmake
	$(fill) cmake/libcoConfigVersion.cmake.in > $(DESTDIR)$(LIBDIR)/cmake/libco/libcoConfigVersion.cmake

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	rmdir $(DESTDIR)$(LIBDIR)/cmake/libco 2>/dev/null || true
	rmdir -p $(DESTDIR)$(DATADIR)/gdb/auto-load$(LIBDIR) 2>/dev/null || true

clean:
	rm -rf lib solib $(EXAMPLES) $(BUILD_DIR)
	$(RUN_CARGO) clean
