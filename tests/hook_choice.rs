//! LIBCO_HOOKS in programs with the static library inside: also without a dynamic loader, and read once.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{library, root, run, scratch, stdout};

/// Says whether a usleep of a hooked coroutine lets others run.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
#include "co_routine.h"

static int woken;

static void *sleeper(void *arg)
{
    co_enable_hook_sys();
    usleep(1000);
    woken = 1;
    return arg;
}

static int ended(void *arg)
{
    (void)arg;
    return woken ? -1 : 0;
}

int main(void)
{
    stCoRoutine_t *co;
    if (co_create(&co, NULL, sleeper, NULL) != 0) {
        return 1;
    }
    co_resume(co);
    puts(woken ? "blocks" : "cooperates");
    co_eventloop(co_get_epoll_ct(), ended, NULL);
    co_release(co);
    return 0;
}
"#;

fn program(folder: &Path, options: &[&str]) -> PathBuf {
    let source = folder.join("main.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let program = folder.join("main");
    run(Command::new("gcc")
        .arg(&source)
        .arg("-I")
        .arg(root().join("include"))
        .arg(library("libcolib.a"))
        .args(options)
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program));
    program
}

#[test]
fn a_program_with_the_static_library_inside_follows_the_environment() {
    let program = program(&scratch("choice_static"), &[]);
    assert_eq!(stdout(Command::new(&program).env_remove("LIBCO_HOOKS")), "blocks\n");
    assert_eq!(stdout(Command::new(&program).env("LIBCO_HOOKS", "all")), "cooperates\n");
    assert_eq!(stdout(Command::new(&program).env("LIBCO_HOOKS", "all,-usleep")), "blocks\n");
}

#[test]
fn a_program_without_any_shared_library_follows_the_environment() {
    let program = program(&scratch("choice_fully_static"), &["-static"]);
    assert_eq!(stdout(Command::new(&program).env_remove("LIBCO_HOOKS")), "blocks\n");
    assert_eq!(stdout(Command::new(&program).env("LIBCO_HOOKS", "usleep")), "cooperates\n");
}

/// A getenv that counts who asks for LIBCO_HOOKS, and says so at the end.
const COUNTING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static int asked;

char *getenv(const char *name)
{
    static char *(*real)(const char *);
    if (!real) {
        real = (char *(*)(const char *))dlsym(RTLD_NEXT, "getenv");
    }
    asked += strcmp(name, "LIBCO_HOOKS") == 0;
    return real(name);
}

__attribute__((destructor)) static void at_end(void)
{
    printf("asked %d\n", asked);
}
"#;

#[test]
fn the_environment_is_asked_once() {
    let folder = scratch("choice_once");
    let program = program(&folder, &["-rdynamic"]);
    let (source, counting) = (folder.join("counting.c"), folder.join("counting.so"));
    std::fs::write(&source, COUNTING).unwrap();
    run(Command::new("gcc").args(["-shared", "-fPIC"]).arg(&source).arg("-o").arg(&counting));
    let says = stdout(Command::new(&program).env("LIBCO_HOOKS", "all").env("LD_PRELOAD", &counting));
    assert_eq!(says, "cooperates\nasked 1\n");
}
