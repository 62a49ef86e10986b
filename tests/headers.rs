//! The generated headers are what the source says; every header compiles alone in every standard.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const GENERATED: [&str; 5] = ["co_routine", "co_routine_inner", "coctx", "co_epoll", "co_inspect"];
const BY_HAND: [&str; 3] = ["co_closure", "co_routine_specific", "co_comm"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate(header: &str) -> String {
    let config = cbindgen::Config::from_file(root().join(format!("cbindgen/{header}.toml"))).unwrap();
    let source = root().join(format!("src/capi/{header}.rs"));
    let mut text = Vec::new();
    let mut builder = cbindgen::Builder::new().with_config(config).with_src(source);
    let more = root().join(format!("src/capi/{header}_hooks.rs"));
    if more.exists() {
        builder = builder.with_src(more);
    }
    builder.generate().unwrap().write(&mut text);
    // Rust's conditions on the arguments, in words a C reader knows.
    String::from_utf8(text).unwrap().replace(" * # Safety\n", " * Requires:\n")
}

#[test]
fn the_committed_headers_are_those_the_source_gives() {
    let write = std::env::var_os("COLIB_WRITE_HEADERS").is_some();
    for header in GENERATED {
        let path = root().join(format!("include/{header}.h"));
        let fresh = generate(header);
        if write {
            fs::write(&path, &fresh).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap();
        assert!(committed == fresh, "include/{header}.h is out of date: run `make headers`");
    }
}

fn compiles(compiler: &str, standard: &str, source: &Path) {
    let output = Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"])
        .arg(root().join("include"))
        .arg(source)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} cannot be run: {error}; see scripts/install-deps.sh"));
    assert!(
        output.status.success(),
        "{compiler} -std={standard} {}:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// One file for each header, which includes it alone, and twice.
fn each_header_alone(extension: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    GENERATED
        .into_iter()
        .chain(BY_HAND)
        .map(|header| {
            let file = folder.join(format!("alone_{header}.{extension}"));
            let line = format!("#include \"{header}.h\"\n");
            let rest = "int main(void) { return 0; }\n";
            fs::write(&file, format!("{line}{line}{rest}")).unwrap();
            file
        })
        .collect()
}

#[test]
fn every_header_compiles_alone_as_c99_to_c23() {
    let files = each_header_alone("c");
    for (compiler, standards) in
        [("gcc", ["c99", "c11", "c17", "c2x", "gnu17"]), ("clang", ["c99", "c11", "c17", "c2x", "gnu17"])]
    {
        for standard in standards {
            files.iter().for_each(|file| compiles(compiler, standard, file));
        }
    }
}

#[test]
fn every_header_compiles_alone_as_cxx98_to_cxx23() {
    let files = each_header_alone("cpp");
    for (compiler, standards) in [
        ("g++", ["c++98", "c++11", "c++14", "c++17", "c++20", "c++23"]),
        ("clang++", ["c++98", "c++11", "c++14", "c++17", "c++20", "c++2b"]),
    ] {
        for standard in standards {
            files.iter().for_each(|file| compiles(compiler, standard, file));
        }
    }
}

/// The layouts that C++ sees, against the table of the original's.
#[test]
fn the_headers_have_the_layout_of_old_objects() {
    let mut text = String::from(
        "#include <cstddef>\n#include \"co_routine_inner.h\"\n#include \"co_epoll.h\"\n#include \"co_comm.h\"\n\
         #include \"co_closure.h\"\n#pragma GCC diagnostic ignored \"-Winvalid-offsetof\"\n",
    );
    for line in include_str!("layouts.tsv").lines().skip(1) {
        let mut field = line.split('\t');
        let (kind, structure, member, value) =
            (field.next().unwrap(), field.next().unwrap(), field.next().unwrap(), field.next().unwrap());
        let measured = match kind {
            "size" => format!("sizeof({structure})"),
            "align" => format!("__alignof__({structure})"),
            "offset" => format!("offsetof({structure}, {member})"),
            other => panic!("unknown kind {other}"),
        };
        text += &format!("static_assert({measured} == {value}, \"{structure} {member}\");\n");
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("layouts.cpp");
    fs::write(&file, text).unwrap();
    compiles("g++", "c++17", &file);
    compiles("clang++", "c++17", &file);
}
