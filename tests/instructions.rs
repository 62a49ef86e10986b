//! What the hot paths cost, in instructions: callgrind counts the same on any day, however busy the
//! machine is, so a regression fails here. The bounds are what the library takes, and a few more.

#![cfg(all(target_arch = "x86_64", not(debug_assertions)))]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use support::{library, root, run, scratch, stdout};

/// Instructions of one operation, by the names of counted.c.
type Counts = BTreeMap<String, f64>;

static STATIC: LazyLock<Counts> = LazyLock::new(|| count("static", "libcolib.a"));
static SHARED: LazyLock<Counts> = LazyLock::new(|| count("shared", "libcolib.so"));

fn count(linkage: &str, file: &str) -> Counts {
    let folder = scratch(&format!("instructions_{linkage}"));
    let program = folder.join("counted");
    let library = library(file);
    run(Command::new("gcc")
        .args(["-std=c11", "-O2", "-I"])
        .arg(root().join("include"))
        .arg(root().join("tests/instructions/counted.c"))
        .arg(&library)
        .args(["-lpthread", "-ldl", "-lrt", "-lutil", "-lm", "-o"])
        .arg(&program));
    if linkage == "shared" {
        std::fs::copy(&library, folder.join("libcolib.so.0.5")).unwrap();
    }
    run(Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", folder.join("counts").display()))
        .arg(&program)
        .env("LD_LIBRARY_PATH", &folder));
    read_counts(&folder)
}

/// The slope between the two sizes of each work.
fn read_counts(folder: &Path) -> Counts {
    let mut sizes: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("counts.") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let after = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let (Some(name), Some(total)) = (after("desc: Trigger: Client Request: "), after("totals: ")) else {
            continue;
        };
        let (work, times) = name.rsplit_once(' ').expect("a work and its times");
        sizes.entry(work.to_owned()).or_default().push((times.parse().unwrap(), total.parse().unwrap()));
    }
    let slope = |points: &[(f64, f64)]| match points {
        [(few, a), (many, b)] => (b - a) / (many - few),
        _ => panic!("two sizes of each work: {points:?}"),
    };
    sizes.iter().map(|(work, points)| (work.clone(), slope(points))).collect()
}

#[track_caller]
fn at_most(counts: &Counts, work: &str, bound: f64) {
    let takes = counts[work];
    assert!(takes > 0.0 && takes <= bound, "{work} takes {takes:.1} instructions, more than {bound}");
}

#[test]
fn a_resume_and_its_yield_stay_within_their_instructions() {
    at_most(&STATIC, "switch", 78.0);
}

#[test]
fn a_resume_and_its_yield_stay_within_their_instructions_in_the_shared_library() {
    at_most(&SHARED, "switch", 82.0);
}

#[test]
fn a_switch_on_a_copy_stack_stays_within_its_instructions() {
    at_most(&STATIC, "copy-switch", 286.0);
}

#[test]
fn a_coroutine_made_run_and_released_stays_within_its_instructions() {
    at_most(&STATIC, "create", 218.0);
}

#[test]
fn a_hooked_read_of_a_ready_socket_stays_within_its_instructions() {
    at_most(&STATIC, "read-ready", 160.0);
}

#[test]
fn a_hooked_read_that_waits_stays_within_its_instructions() {
    at_most(&STATIC, "read-wait", 1444.0);
}

#[test]
fn a_wait_in_co_poll_stays_within_its_instructions() {
    at_most(&STATIC, "poll-wait", 1190.0);
}

#[test]
fn a_wait_on_a_condition_stays_within_its_instructions() {
    at_most(&STATIC, "cond-wait", 800.0);
}

#[test]
fn a_sleep_stays_within_its_instructions() {
    at_most(&STATIC, "sleep", 1930.0);
}

#[test]
fn a_hook_that_is_off_adds_at_most_fifteen_instructions() {
    let mut dear = Vec::new();
    let mut hooks = 0;
    for (work, takes) in &*STATIC {
        let Some(name) = work.strip_prefix("hooked ") else { continue };
        let more = takes - STATIC[&format!("plain {name}")];
        hooks += 1;
        if more > 15.0 {
            dear.push(format!("{name} +{more:.1}"));
        }
    }
    assert!(hooks > 0 && dear.is_empty(), "of {hooks} hooks: {}", dear.join(", "));
}

/// A return is mispredicted where a jump is not, and a call on the way is two of them: twice the price, for a
/// few instructions more.
#[test]
fn resume_and_yield_are_one_function_that_leaves_by_a_jump() {
    for function in ["co_resume", "_Z9co_resumeP13stCoRoutine_t", "co_yield_ct", "_Z11co_yield_ctv"] {
        let code = stdout(
            Command::new("objdump")
                .args(["-d", "--no-show-raw-insn"])
                .arg(format!("--disassemble={function}"))
                .arg(library("libcolib.so")),
        );
        let has = |what: &str| code.lines().any(|line| line.contains(what));
        assert!(has("\tjmp    *%rcx") && !has("\tcall") && !has("\tret"), "{function}:\n{code}");
    }
}
