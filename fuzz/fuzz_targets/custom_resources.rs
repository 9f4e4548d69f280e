//! [`coracle_fuzz::custom_resources`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::custom_resources::run(data));
