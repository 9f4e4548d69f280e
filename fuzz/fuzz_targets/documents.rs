//! [`coracle_fuzz::documents`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::documents::run(data));
