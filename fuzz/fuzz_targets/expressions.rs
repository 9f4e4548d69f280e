//! [`coracle_fuzz::expressions`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::expressions::run(data));
