//! What the fuzzer drives: each target turns bytes into a program, runs it on a part of the library, and compares
//! every result with a model. In no build but the fuzzer's and the unit tests'.
//!
//! | file | plays |
//! |---|---|
//! | wheel | timers set, cancelled, set anew inside a callback, against a sorted map |
//! | descriptors | numbers recorded, shared, closed and reused, against a map of files |
//! | environ | private environment variables, against a map for each coroutine |
//! | poll | several coroutines that poll the same descriptors, against poll(2) |
//! | choice | the words of co_set_hooks, against a set of names |
//! | objects | small objects from two caches, against the bytes written to them |
//! | calls | a program of API calls, against who must run when |
//!
//! Bytes that run out end the program: every input is a valid one. A target that finds a difference panics. The
//! inputs kept in fuzz/corpus and fuzz/regressions are played by `cargo test`, too; see docs/TESTING.md.

#![expect(missing_docs, reason = "not a part of the library")]

pub(crate) mod bytes;
mod calls;
mod environ;
mod objects;
mod poll;
mod wheel;

use crate::hook::choice::fuzzing as choice;
use crate::hook::fuzz_descriptors as descriptors;

/// One target: its name, which is its folder's too, and what plays an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("wheel", wheel::play),
    ("descriptors", descriptors::play),
    ("environ", environ::play),
    ("choice", choice::play),
    ("objects", objects::play),
    ("poll", poll::play),
    ("calls", calls::play),
];

/// Plays an input of the target of this name.
pub fn play(name: &str, data: &[u8]) {
    let (_, play) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    play(data);
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::path::Path;

    /// The kept inputs of a target; there must be some.
    fn inputs(name: &str) -> Vec<std::path::PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let files = |kind: &str| {
            let entries = std::fs::read_dir(folder.join(kind).join(name)).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        let corpus = files("corpus");
        assert!(!corpus.is_empty(), "fuzz/corpus/{name} has no inputs");
        [corpus, files("regressions")].concat()
    }

    /// One after the other: some targets play with what the process has one of.
    #[test]
    fn the_kept_inputs_of_the_fuzzer_play_as_their_models_say() {
        for (name, play) in TARGETS {
            for path in inputs(name) {
                println!("{name}: {}", path.display());
                play(&std::fs::read(path).unwrap());
            }
        }
    }
}
