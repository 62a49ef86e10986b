//! docs/COMPAT.md's table of symbols is what tests/symbols.tsv says, and what the library exports.

mod support;

use std::fmt::Write;

use support::{root, symbols};

const BEGIN: &str = "<!-- symbols: begin (written by `make docs-table`) -->\n";
const END: &str = "<!-- symbols: end -->\n";

fn table() -> String {
    let mut text = String::from("| function | symbol | declared in | here |\n|---|---|---|---|\n");
    for symbol in symbols() {
        let here = match symbol.export {
            "yes" if symbol.declared_in == "libc" => "hooked",
            "yes" => "exported, also as plain C name",
            "new" => "new, not in libco",
            "alias" => "hooked: another name of a hooked call",
            "added" => "hooked, see docs/HOOKS.md",
            "noticed" => "plain, but the hooks notice the number",
            "inline" => "inline in our header",
            "no" => "left out: an internal that no known program calls",
            other => panic!("unknown word {other}"),
        };
        let here = if symbol.c_name.is_empty() || symbol.name == symbol.c_name {
            here.replace(", also as plain C name", "")
        } else {
            here.to_owned()
        };
        let declared = if symbol.declared_in == "-" || symbol.declared_in == "none" {
            "by the program"
        } else {
            symbol.declared_in
        };
        writeln!(text, "| `{}` | `{}` | {declared} | {here} |", symbol.signature, symbol.name).unwrap();
    }
    text
}

#[test]
fn the_table_of_symbols_in_the_docs_is_the_one_the_library_is_tested_against() {
    let path = root().join("docs/COMPAT.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning is marked");
    let (_, after) = rest.split_once(END).expect("the table's end is marked");
    let fresh = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("COLIB_WRITE_DOCS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    } else {
        assert!(text == fresh, "docs/COMPAT.md is out of date: run `make docs-table`");
    }
}
