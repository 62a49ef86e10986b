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
    program_of(folder, PROGRAM, options)
}

fn program_of(folder: &Path, text: &str, options: &[&str]) -> PathBuf {
    let source = folder.join("main.c");
    std::fs::write(&source, text).unwrap();
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

/// The waiting calls on the main coroutine, then in a hooked one, each with its result checked.
const WAITS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>
#include "co_routine.h"

static int done, wrong;

static void expect(int holds, const char *what)
{
    if (!holds) {
        printf("wrong: %s (errno %d)\n", what, errno);
        wrong = 1;
    }
}

static void *waits(void *arg)
{
    int ends[2], epfd = epoll_create1(0);
    fd_set set;
    struct timeval time = {0, 1002000};
    const struct timespec ms = {0, 1000000}, bad = {0, -1};
    struct pollfd one;
    struct epoll_event event = {.events = EPOLLIN};

    co_enable_hook_sys();
    expect(pipe(ends) == 0, "pipe");
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    expect(select(ends[0] + 1, &set, NULL, NULL, &time) == 0 && !FD_ISSET(ends[0], &set), "select");
    expect(time.tv_sec == 0 && time.tv_usec == 0, "what is left of it");
    time.tv_usec = -1;
    expect(select(0, NULL, NULL, NULL, &time) == -1 && errno == EINVAL, "select of a bad time");
    expect(pselect(0, NULL, NULL, NULL, &ms, NULL) == 0, "pselect");
    one.fd = ends[0];
    one.events = POLLIN;
    expect(poll(&one, 1, 1) == 0, "poll");
    expect(ppoll(&one, 1, &ms, NULL) == 0, "ppoll");
    expect(ppoll(&one, 1, &bad, NULL) == -1 && errno == EINVAL, "ppoll of a bad time");
    expect(epoll_ctl(epfd, EPOLL_CTL_ADD, ends[0], &event) == 0, "epoll_ctl");
    expect(epoll_wait(epfd, &event, 1, 1) == 0, "epoll_wait");
    expect(epoll_pwait(epfd, &event, 1, 1, NULL) == 0, "epoll_pwait");
    expect(usleep(1000) == 0, "usleep");
    expect(sleep(0) == 0, "sleep");
    expect(nanosleep(&ms, NULL) == 0, "nanosleep");
    expect(nanosleep(&bad, NULL) == -1 && errno == EINVAL, "nanosleep of a bad time");
    expect(clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL) == 0, "clock_nanosleep");
    expect(clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, NULL) == EINVAL, "clock_nanosleep of a bad time");
    expect(thrd_sleep(&ms, NULL) == 0, "thrd_sleep");
    expect(thrd_sleep(&bad, NULL) < -1, "thrd_sleep of a bad time");
    expect(write(ends[1], "x", 1) == 1, "write");
    FD_SET(ends[0], &set);
    expect(select(ends[0] + 1, &set, NULL, NULL, NULL) == 1 && FD_ISSET(ends[0], &set), "select of one");
    expect(poll(&one, 1, -1) == 1 && one.revents == POLLIN, "poll of one");
    expect(epoll_wait(epfd, &event, 1, -1) == 1, "epoll_wait of one");
    done = 1;
    return arg;
}

static int ended(void *arg)
{
    (void)arg;
    return done ? -1 : 0;
}

int main(void)
{
    stCoRoutine_t *co;
    waits(NULL);
    done = 0;
    expect(co_create(&co, NULL, waits, NULL) == 0, "co_create");
    co_resume(co);
    co_eventloop(co_get_epoll_ct(), ended, NULL);
    co_release(co);
    puts(wrong ? "wrong" : "right");
    return wrong;
}
"#;

/// Without a C library to find the real functions in, system calls of ours stand for them.
#[test]
fn every_waiting_call_works_with_and_without_a_c_library_behind_it() {
    for options in [&[] as &[&str], &["-static"]] {
        let program = program_of(&scratch("choice_waits"), WAITS, options);
        for words in ["default", "all"] {
            assert_eq!(stdout(Command::new(&program).env("LIBCO_HOOKS", words)), "right\n");
        }
    }
}
