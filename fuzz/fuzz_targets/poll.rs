#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colib::fuzzing::play("poll", data));
