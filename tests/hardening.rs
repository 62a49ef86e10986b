//! What SECURITY.md says of the files: stacks, relocations, marks for control-flow enforcement, ways to link.

#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{library, root, run, scratch, stdout};

fn readelf(options: &str, file: &Path) -> String {
    stdout(Command::new("readelf").arg(options).arg(file))
}

#[test]
fn no_object_of_the_archive_asks_for_an_executable_stack() {
    let archive = library("libcolib.a");
    let sections = readelf("-SW", &archive);
    let objects = sections.matches("File: ").count();
    let marks: Vec<&str> = sections.lines().filter(|line| line.contains(".note.GNU-stack")).collect();
    assert!(objects > 1 && marks.len() == objects, "{objects} objects, {} with a mark", marks.len());
    // Name, type, address, offset, size, entry size, then flags or none.
    for mark in marks {
        let after_name = mark.split(".note.GNU-stack").nth(1).unwrap();
        let flags = after_name.split_whitespace().nth(5).unwrap();
        assert!(!flags.contains('X'), "{mark}");
    }
}

#[test]
fn no_segment_of_the_shared_library_is_writable_and_executable_and_all_relocations_are_read_only_later() {
    let library = library("libcolib.so");
    let headers = readelf("-lW", &library);
    assert!(headers.lines().filter(|line| line.trim().starts_with("LOAD")).all(|line| !line.contains("RWE")));
    assert!(headers.contains("GNU_RELRO"), "{headers}");
    let dynamic = readelf("-dW", &library);
    assert!(dynamic.contains("BIND_NOW"), "{dynamic}");
    assert!(
        !dynamic.contains("RPATH") && !dynamic.contains("RUNPATH") && !dynamic.contains("TEXTREL"),
        "{dynamic}"
    );
}

/// The switch leaves one stack for another and jumps: with a shadow stack the next return would fault. An object
/// without the mark takes it from the whole program.
#[test]
fn nothing_of_ours_is_marked_for_shadow_stacks_and_so_no_program_with_it_is() {
    for file in ["libcolib.a", "libcolib.so"] {
        let notes = readelf("-nW", &library(file));
        assert!(!notes.contains("SHSTK") && !notes.contains("IBT"), "{file}");
    }
    let program = linked("cet", "g++", &["-fcf-protection=full"], "libcolib.a");
    let notes = readelf("-nW", &program);
    assert!(!notes.contains("SHSTK"), "{notes}");
    assert_eq!(stdout(&mut Command::new(&program)), "ran\n");
}

/// A program linked to the library in a way of its own.
fn linked(test: &str, compiler: &str, options: &[&str], file: &str) -> PathBuf {
    let folder = scratch(&format!("hardening_{test}"));
    let program = folder.join("program");
    run(Command::new(compiler)
        .args(options)
        .arg("-I")
        .arg(root().join("include"))
        .arg(root().join("tests/hardening/program.cpp"))
        .arg(library(file))
        .args(["-lpthread", "-ldl", "-lrt", "-lutil", "-lm", "-o"])
        .arg(&program));
    program
}

#[test]
fn programs_of_every_kind_run() {
    let ways: [(&str, &[&str]); 6] = [
        ("pie", &["-fPIE", "-pie"]),
        ("no_pie", &["-fno-pie", "-no-pie"]),
        ("full_relro", &["-fPIE", "-pie", "-Wl,-z,now,-z,relro", "-D_FORTIFY_SOURCE=2", "-O2"]),
        ("static", &["-static"]),
        ("static_pie", &["-static-pie", "-fPIE"]),
        ("gc_sections", &["-Wl,--gc-sections"]),
    ];
    for (name, options) in ways {
        for compiler in ["g++", "clang++"] {
            let program = linked(&format!("{name}_{compiler}"), compiler, options, "libcolib.a");
            assert_eq!(stdout(&mut Command::new(&program)), "ran\n", "{name}, {compiler}");
            let headers = readelf("-lW", &program);
            let stack = headers.lines().find(|line| line.contains("GNU_STACK")).unwrap();
            assert!(!stack.contains("RWE"), "{name}: {stack}");
        }
    }
}

#[test]
fn another_library_in_rust_fits_into_the_same_program() {
    let folder = scratch("hardening_other");
    let other = folder.join("libother.a");
    run(Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "staticlib", "-O", "-o"])
        .arg(&other)
        .arg(root().join("tests/hardening/other/lib.rs")));
    for (order, way) in [[true, false], [false, true]].into_iter().zip(["ours_first", "other_first"]) {
        for options in [&[][..], &["-Wl,--gc-sections"], &["-static"]] {
            let program = folder.join(way);
            let mut link = Command::new("g++");
            link.arg("-DWITH_OTHER").args(options).arg("-I").arg(root().join("include"));
            link.arg(root().join("tests/hardening/program.cpp"));
            for ours in order {
                link.arg(if ours { library("libcolib.a") } else { other.clone() });
            }
            run(link.args(["-lpthread", "-ldl", "-lrt", "-lutil", "-lm", "-o"]).arg(&program));
            assert_eq!(stdout(&mut Command::new(&program)), "ran\n", "{way} {options:?}");
        }
    }
}

/// LIBCO_LOG in the environment of a program that runs with its owner's rights says nothing.
#[test]
fn settings_in_the_environment_of_a_setuid_program_are_not_heard() {
    // SAFETY: a number.
    if unsafe { libc::getuid() } != 0 {
        return eprintln!("not root: no program can be made setuid to another");
    }
    let program = linked("setuid", "g++", &[], "libcolib.a");
    // Where another user can come to.
    let folder = PathBuf::from(format!("/tmp/colib-setuid.{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("program");
    std::fs::copy(&program, &copy).unwrap();
    let says = |mode: u32| {
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups"])
            .arg(&copy)
            .env("LIBCO_LOG", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (plain, setuid) = (says(0o755), says(0o4755));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(plain.contains("the coroutine is NULL"), "{plain}");
    assert_eq!(setuid, "");
}
