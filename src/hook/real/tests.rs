//! What stands in for a function that the C library does not have: on this machine it has them all.

use super::*;

#[test]
fn waits_without_the_c_library_end_by_what_happens_and_by_time() {
    let mut ends = [-1; 2];
    // SAFETY: room for two numbers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let mut both = ends.map(|fd| pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 });
    // SAFETY: two pollfds.
    assert_eq!(unsafe { no_poll(both.as_mut_ptr(), 2, -1) }, 1);
    assert_eq!([both[0].revents, both[1].revents], [0, libc::POLLOUT]);
    // SAFETY: one pollfd, of the end that is empty.
    assert_eq!(unsafe { no_poll(both.as_mut_ptr(), 1, 1) }, 0);
    // SAFETY: all-zero bytes are an empty set.
    let mut set: fd_set = unsafe { core::mem::zeroed() };
    // SAFETY: a set, and a number it has room for.
    unsafe { libc::FD_SET(ends[1], &mut set) };
    let mut time = timeval { tv_sec: 5, tv_usec: 0 };
    // SAFETY: a set and a time of ours.
    let found = unsafe { no_select(ends[1] + 1, null_mut(), &mut set, null_mut(), &mut time) };
    assert_eq!(found, 1);
    assert!(time.tv_sec == 4 || (time.tv_sec, time.tv_usec) == (5, 0), "what is left: {}", time.tv_sec);
    // SAFETY: a set of ours; waits for ever.
    assert_eq!(unsafe { no_select(ends[1] + 1, null_mut(), &mut set, null_mut(), null_mut()) }, 1);
    for fd in ends {
        // SAFETY: a number onto itself.
        assert_eq!(unsafe { dup_onto(fd, fd) }, fd);
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
}

#[test]
fn sleeps_without_the_c_library_take_their_time() {
    let start = std::time::Instant::now();
    assert_eq!((no_sleep(0), no_usleep(2000)), (0, 0));
    let wish = timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    // SAFETY: a time of ours, and nobody asks for the rest.
    let done = unsafe { no_clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &wish, null_mut()) };
    // SAFETY: as above.
    assert_eq!((done, unsafe { no_thrd_sleep(&wish, null_mut()) }), (0, 0));
    assert!(start.elapsed().as_millis() >= 6);
    let wrong = timespec { tv_sec: 0, tv_nsec: -1 };
    // SAFETY: as above.
    assert_eq!(unsafe { no_thrd_sleep(&wrong, null_mut()) }, -2);
}

#[test]
fn the_environment_without_the_c_library_is_the_same_one() {
    let (name, value) = (c"COLIB_TEST_OF_REAL", |text: *mut c_char| {
        assert!(!text.is_null());
        // SAFETY: a string of the environment.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    });
    // SAFETY: strings.
    assert!(unsafe { environ_value(name.as_ptr()) }.is_null());
    for (wish, overwrite, found) in [(c"one", 0, c"one"), (c"two", 0, c"one"), (c"three", 1, c"three")] {
        // SAFETY: strings.
        assert_eq!(unsafe { put_environ(name.as_ptr(), wish.as_ptr(), overwrite) }, 0);
        // SAFETY: a string.
        assert_eq!(value(unsafe { environ_value(name.as_ptr()) }), found.to_bytes());
    }
}
