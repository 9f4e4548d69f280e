//! [`coracle_fuzz::selectors`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::selectors::run(data));
