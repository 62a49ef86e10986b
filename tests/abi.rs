//! The libraries' names, and programs compiled without our headers.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use support::{library, root, run, scratch, stdout, symbols};

fn exported() -> BTreeSet<String> {
    symbols()
        .into_iter()
        .filter(|symbol| matches!(symbol.export, "yes" | "new" | "alias" | "noticed" | "added"))
        .flat_map(|symbol| [symbol.name.to_owned(), symbol.c_name.to_owned()])
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_shared_library_has_every_name_of_the_table() {
    // SAFETY: loading runs the library's own initialiser alone.
    let colib = unsafe { libloading::Library::new(library("libcolib.so")) }.unwrap();
    for name in exported() {
        // SAFETY: the symbol is looked up, not called.
        let found = unsafe { colib.get::<unsafe extern "C" fn()>(name.as_bytes()) };
        assert!(found.is_ok(), "{name} is not exported");
    }
}

/// No function, and in no header: where a debugger starts to look, since a stripped library keeps the names that it
/// exports and no others.
const FOR_DEBUGGERS: &str = "colib_debug_layout";

#[test]
fn the_shared_library_exports_nothing_else() {
    let listing = stdout(Command::new("nm").args(["-D", "--defined-only"]).arg(library("libcolib.so")));
    let names: BTreeSet<String> =
        listing.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    let mut expected = exported();
    expected.insert(FOR_DEBUGGERS.to_owned());
    let extra: Vec<_> = names.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&names).collect();
    assert!(extra.is_empty() && missing.is_empty(), "extra {extra:?}, missing {missing:?}");
}

#[test]
fn the_shared_library_is_named_as_the_originals_cmake_build_names_it() {
    let dynamic = stdout(Command::new("readelf").arg("-d").arg(library("libcolib.so")));
    assert!(dynamic.contains("Library soname: [libcolib.so.0.5]"), "{dynamic}");
}

#[test]
fn nothing_in_the_shared_library_needs_an_executable_stack_or_text_relocations() {
    let headers = stdout(Command::new("readelf").arg("-lW").arg(library("libcolib.so")));
    let stack = headers.lines().find(|line| line.contains("GNU_STACK")).expect("a GNU_STACK header");
    assert!(stack.contains(" RW ") && !stack.contains("RWE"), "{stack}");
    let dynamic = stdout(Command::new("readelf").arg("-dW").arg(library("libcolib.so")));
    assert!(!dynamic.contains("TEXTREL"), "{dynamic}");
    assert!(dynamic.contains("BIND_NOW") || dynamic.contains("NOW"), "{dynamic}");
}

/// An object with the original's declarations, in C++ linkage, without any header of ours.
fn old_object(folder: &Path) -> std::path::PathBuf {
    let object = folder.join("old_service.o");
    run(Command::new("g++")
        .args(["-std=gnu++98", "-O2", "-Wall", "-Werror", "-c"])
        .arg(root().join("tests/old/old_service.cpp"))
        .arg("-o")
        .arg(&object));
    object
}

const OLD_SERVICE_SAYS: &str =
    "resumes 4\nspec seven\nmain spec nine\nended 1\nreset 2\necho ping\nlocked 3\nok\n";

#[test]
fn an_old_object_runs_on_the_static_library() {
    let folder = scratch("old_static");
    let program = folder.join("old_service");
    run(Command::new("g++")
        .arg(old_object(&folder))
        .arg(library("libcolib.a"))
        .args(["-lpthread", "-ldl", "-o"])
        .arg(&program));
    assert_eq!(stdout(&mut Command::new(&program)), OLD_SERVICE_SAYS);
}

/// A stand-in for the original's shared library, to link against: the names and nothing behind them.
fn stand_in(folder: &Path, soname: Option<&str>) {
    let mut source = String::new();
    for symbol in symbols().iter().filter(|s| s.export == "yes" && s.name.starts_with("_Z")) {
        source += &format!(".globl {0}\n.type {0},@function\n{0}: ret\n", symbol.name);
    }
    source += ".section .note.GNU-stack,\"\",@progbits\n";
    let file = folder.join("names.s");
    std::fs::write(&file, source).unwrap();
    let mut link = Command::new("gcc");
    link.args(["-shared", "-nostdlib"]).arg(&file).arg("-o").arg(folder.join("libcolib.so"));
    if let Some(name) = soname {
        link.arg(format!("-Wl,-soname,{name}"));
    }
    run(&mut link);
}

fn starts_on_ours(test: &str, soname: Option<&str>, installed_as: &str) {
    let folder = scratch(test);
    stand_in(&folder, soname);
    let program = folder.join("old_service");
    run(Command::new("g++")
        .arg(old_object(&folder))
        .arg("-L")
        .arg(&folder)
        .args(["-lcolib", "-lpthread", "-o"])
        .arg(&program));
    let ours = folder.join("ours");
    std::fs::create_dir(&ours).unwrap();
    std::fs::copy(library("libcolib.so"), ours.join(installed_as)).unwrap();
    let says = stdout(Command::new(&program).env("LD_LIBRARY_PATH", &ours));
    assert_eq!(says, OLD_SERVICE_SAYS);
}

#[test]
fn a_program_linked_to_the_originals_make_build_starts_on_ours() {
    starts_on_ours("old_make", None, "libcolib.so");
}

#[test]
fn a_program_linked_to_the_originals_cmake_build_starts_on_ours() {
    starts_on_ours("old_cmake", Some("libcolib.so.0.5"), "libcolib.so.0.5");
}

#[test]
fn one_reference_to_any_name_brings_in_all_hooks() {
    let folder = scratch("pull_in");
    for (i, call) in ["co_enable_hook_sys()", "read(-1, 0, 0)", "getenv(\"X\")"].iter().enumerate() {
        let source = folder.join(format!("main{i}.c"));
        let text = format!(
            "#include <stdlib.h>\n#include <unistd.h>\nvoid co_enable_hook_sys(void);\nint main(void) {{ (void)!{}; return 0; }}\n",
            call.replace("co_enable_hook_sys()", "(co_enable_hook_sys(), 1)")
        );
        std::fs::write(&source, text).unwrap();
        let program = folder.join(format!("main{i}"));
        run(Command::new("gcc")
            .arg(&source)
            .arg(library("libcolib.a"))
            .args(["-rdynamic", "-lpthread", "-ldl", "-lm", "-o"])
            .arg(&program));
        let names = stdout(Command::new("nm").args(["-D", "--defined-only"]).arg(&program));
        let defined: BTreeSet<&str> =
            names.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
        for hook in symbols().iter().filter(|s| s.declared_in == "libc") {
            assert!(defined.contains(hook.name), "{call} does not bring in {}", hook.name);
        }
        run(&mut Command::new(&program));
    }
}

#[test]
fn a_shared_library_that_the_program_links_reaches_the_hooks_of_the_static_library() {
    let folder = scratch("through_so");
    let (lib, main) = (folder.join("client.c"), folder.join("main.c"));
    // The library was never compiled with coroutines in mind.
    std::fs::write(
        &lib,
        "#include <unistd.h>\n#include <sys/socket.h>\nint client_socket(void) { return socket(AF_INET, SOCK_DGRAM, 0); }\n",
    )
    .unwrap();
    std::fs::write(
        &main,
        "#include <fcntl.h>\n#include <stdio.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n#include \"co_routine.h\"\n\
         int client_socket(void);\n\
         static void *routine(void *arg) { (void)arg; co_enable_hook_sys(); int fd = client_socket();\n\
         printf(\"%d %d\\n\", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, (syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK) != 0); return 0; }\n\
         int main(void) { stCoRoutine_t *co; co_create(&co, 0, routine, 0); co_resume(co); co_release(co); return 0; }\n",
    )
    .unwrap();
    let client = folder.join("libclient.so");
    run(Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&client).arg(&lib));
    let program = folder.join("main");
    run(Command::new("gcc")
        .arg("-I")
        .arg(root().join("include"))
        .arg(&main)
        .arg(&client)
        .arg(library("libcolib.a"))
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program));
    let says = stdout(Command::new(&program).env("LD_LIBRARY_PATH", &folder));
    assert_eq!(says, "0 1\n", "hidden from the program, non-blocking underneath");
}
