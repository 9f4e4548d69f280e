//! [`coracle_fuzz::managed_fields`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::managed_fields::run(data));
