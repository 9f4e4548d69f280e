//! [`coracle_fuzz::schedules`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::schedules::run(data));
