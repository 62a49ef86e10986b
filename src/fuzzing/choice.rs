//! The words of co_set_hooks against a set of names, taken from the documented table.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{ENTRIES, Entry, ON, QUIRKS, Set, choose};

/// The model: which hooks can be chosen, which are on, and whether the original's ways are.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Chosen {
    on: BTreeSet<&'static str>,
    quirks: bool,
}

fn those(which: impl Fn(&Entry) -> bool) -> BTreeSet<&'static str> {
    ENTRIES.iter().filter(|entry| which(entry)).map(|entry| entry.name).collect()
}

fn as_by_default() -> Chosen {
    Chosen { on: those(|entry| entry.set == Set::Default), quirks: false }
}

/// What the words mean; `None` if one means nothing.
fn meaning(words: &[u8]) -> Option<Chosen> {
    let mut chosen = as_by_default();
    for word in words.split(|&byte| byte == b',') {
        match word.trim_ascii() {
            b"" => {}
            b"default" => chosen = as_by_default(),
            b"all" => {
                chosen.on = those(|entry| matches!(entry.set, Set::Default | Set::Added));
                chosen.quirks = false;
            }
            b"libco" => chosen = Chosen { on: BTreeSet::new(), quirks: true },
            word => {
                let (wanted, name) = word.strip_prefix(b"-").map_or((true, word), |name| (false, name));
                let names = |entry: &&Entry| {
                    [&[entry.name], entry.also].concat().iter().any(|known| known.as_bytes() == name)
                };
                let entry = ENTRIES.iter().find(names)?;
                if !matches!(entry.set, Set::Default | Set::Added) {
                    return None;
                }
                if wanted {
                    chosen.on.insert(entry.name)
                } else {
                    chosen.on.remove(entry.name)
                };
            }
        }
    }
    Some(chosen)
}

fn chosen() -> Chosen {
    let on = ON.load(Ordering::Relaxed);
    let bit = |(at, entry): (usize, &Entry)| (on & 1 << at != 0).then_some(entry.name);
    Chosen { on: ENTRIES.iter().enumerate().filter_map(bit).collect(), quirks: on & QUIRKS != 0 }
}

/// Words that mean something, or nearly: each byte is one.
fn words(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes.iter().map(|&byte| usize::from(byte)) {
        let entry = &ENTRIES[byte / 2 % ENTRIES.len()];
        match byte {
            240.. => text.push(b'\n'),
            220..240 => text.extend([&b"all,"[..], b"default,", b"libco,", b" all ,", b"-all,"][byte % 5]),
            _ => {
                let names = [&[entry.name], entry.also].concat();
                text.extend([&b""[..], b"-"][byte % 2]);
                text.extend(names[byte / 2 % names.len()].as_bytes());
                text.push(b',');
            }
        }
    }
    text
}

pub(crate) fn play(data: &[u8]) {
    let before = ON.load(Ordering::Relaxed);
    // As they are, or each a word.
    let data = match data.split_first() {
        Some((first, rest)) if first % 2 == 0 => words(rest),
        _ => data.to_vec(),
    };
    // Each line is a call.
    for words in data.split(|&byte| byte == b'\n') {
        let old = chosen();
        match (choose(words), meaning(words)) {
            (Ok(()), Some(wanted)) => assert_eq!(chosen(), wanted),
            (Err(word), None) => {
                assert_eq!(chosen(), old, "a refused call changes nothing");
                assert!(words.as_ptr_range().contains(&word.as_ptr()), "the word is one of the caller's");
            }
            (Ok(()), None) => panic!("accepted: {}", words.escape_ascii()),
            (Err(word), Some(_)) => panic!("refused: {}", word.escape_ascii()),
        }
    }
    ON.store(before, Ordering::Relaxed);
}
