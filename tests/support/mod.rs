//! What the tests of the built libraries share.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One row of symbols.tsv.
pub(crate) struct Symbol {
    /// The exported name.
    pub(crate) name: &'static str,
    /// Its plain C name, empty where there is none.
    pub(crate) c_name: &'static str,
    /// The header that declares it, or "libc" for hooks.
    pub(crate) declared_in: &'static str,
    /// yes, no, inline: what becomes of the original's; new, alias, added, noticed: what we add.
    pub(crate) export: &'static str,
    /// As C++ reads it.
    pub(crate) signature: &'static str,
}

/// The table of everything that the original exports, and of what we add.
pub(crate) fn symbols() -> Vec<Symbol> {
    include_str!("../symbols.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let mut field = line.split('\t');
            let mut next = || field.next().expect("five fields");
            Symbol { name: next(), c_name: next(), declared_in: next(), export: next(), signature: next() }
        })
        .collect()
}

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A library that cargo built with this test.
pub(crate) fn library(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let newest = [deps.join(name), deps.parent().unwrap().join(name)]
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    newest.unwrap_or_else(|| panic!("{name} was not built beside {}", deps.display())).1
}

/// A folder of its own for a test, empty.
pub(crate) fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}; see scripts/install-deps.sh"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a command that must succeed prints.
pub(crate) fn stdout(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}
