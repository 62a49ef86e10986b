//! docs/HOOKS.md's table of hooks is the one the library chooses from, and every hook is exported.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;

use colib::{HOOKS, HookSet};
use support::{root, symbols};

const BEGIN: &str = "<!-- hooks: begin (written by `make docs-table`) -->\n";
const END: &str = "<!-- hooks: end -->\n";

fn table() -> String {
    let mut text = String::from(
        "| function | on | what it does in a coroutine that called co_enable_hook_sys |\n|---|---|---|\n",
    );
    for entry in HOOKS {
        let on = match entry.set {
            HookSet::Libco => "as in libco",
            HookSet::Default => "by default",
            HookSet::Added => "if asked for",
            HookSet::Noticed => "never waits",
        };
        let also: String = entry.also.iter().map(|name| format!(", `{name}`")).collect();
        writeln!(text, "| `{}`{also} | {on} | {} |", entry.name, entry.what).unwrap();
    }
    text
}

#[test]
fn the_table_of_hooks_in_the_docs_is_the_one_the_library_chooses_from() {
    let path = root().join("docs/HOOKS.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning is marked");
    let (_, after) = rest.split_once(END).expect("the table's end is marked");
    let fresh = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("COLIB_WRITE_DOCS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    } else {
        assert!(text == fresh, "docs/HOOKS.md is out of date: run `make docs-table`");
    }
}

#[test]
fn every_hook_of_the_table_is_a_symbol_of_the_library_and_the_other_way_round() {
    let exported: BTreeSet<_> =
        symbols().iter().filter(|symbol| symbol.declared_in == "libc").map(|symbol| symbol.name).collect();
    let listed: BTreeSet<_> =
        HOOKS.iter().flat_map(|entry| entry.also.iter().copied().chain([entry.name])).collect();
    assert_eq!(exported, listed);
}
