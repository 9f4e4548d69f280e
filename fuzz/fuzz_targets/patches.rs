//! [`coracle_fuzz::patches`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::patches::run(data));
