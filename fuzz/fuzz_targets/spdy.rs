//! [`coracle_fuzz::spdy`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::spdy::run(data));
