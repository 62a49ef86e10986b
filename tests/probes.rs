//! The static probes (USDT), as gdb finds them: perf and bpftrace read the same notes.

#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use support::{library, root, run, scratch, stdout};

/// How often each probe was hit in a run of probed.cpp, and its last two arguments.
fn hits(linkage: &str, file: &str) -> BTreeMap<String, (usize, [u64; 2])> {
    let folder = scratch(&format!("probes_{linkage}"));
    let program = folder.join("probed");
    let library = library(file);
    if linkage == "shared" {
        std::fs::copy(&library, folder.join("libcolib.so.0.5")).unwrap();
    }
    run(Command::new("g++")
        .args(["-g", "-I"])
        .arg(root().join("include"))
        .arg(root().join("tests/probes/probed.cpp"))
        .arg(&library)
        .args(["-lpthread", "-ldl", "-lrt", "-lutil", "-lm", "-o"])
        .arg(&program));
    // (A probe of a library that is not loaded yet cannot be waited for.)
    let mut script = String::from("set pagination off\nset disable-randomization off\nbreak main\nrun\n");
    for probe in ["create", "resume", "yield", "wait", "wake", "end"] {
        script += &format!(
            "break -probe-stap colib:{probe}\ncommands\nsilent\n\
             printf \"HIT {probe} %lu %lu %d\\n\", $_probe_arg0, $_probe_arg1, $_probe_argc\ncontinue\nend\n"
        );
    }
    script += "continue\n";
    let commands = folder.join("commands");
    std::fs::write(&commands, script).unwrap();
    let output = stdout(
        Command::new("gdb")
            .args(["-nx", "-batch", "-x"])
            .arg(&commands)
            .arg(&program)
            .env("LD_LIBRARY_PATH", &folder),
    );
    let mut hits = BTreeMap::new();
    for line in output.lines() {
        let Some(hit) = line.strip_prefix("HIT ") else { continue };
        let words: Vec<&str> = hit.split(' ').collect();
        assert_eq!(words[3], "2", "two arguments: {line}");
        let count = hits.get(words[0]).map_or(0, |&(count, _)| count);
        let arguments = [1, 2].map(|i: usize| words[i].parse().unwrap());
        hits.insert(words[0].to_owned(), (count + 1, arguments));
    }
    assert!(output.contains("exited normally"), "{output}");
    hits
}

fn every_probe_tells_its_event(linkage: &str, file: &str) {
    let hits = hits(linkage, file);
    let count = |probe: &str| hits.get(probe).map_or(0, |&(count, _)| count);
    assert_eq!(count("create"), 2);
    assert_eq!(count("resume"), 4, "each coroutine is resumed twice");
    assert_eq!(count("yield"), 2);
    assert_eq!(count("wait"), 1);
    assert_eq!(count("wake"), 1);
    assert_eq!(count("end"), 2);
    let [woken, outcome] = hits["wake"].1;
    assert_eq!(woken, hits["wait"].1[0], "who waited was woken");
    assert_eq!(outcome, 0, "by its time-out");
}

#[test]
fn every_probe_tells_its_event_in_the_static_library() {
    every_probe_tells_its_event("static", "libcolib.a");
}

#[test]
fn every_probe_tells_its_event_in_the_shared_library() {
    every_probe_tells_its_event("shared", "libcolib.so");
}
