//! [`coracle_fuzz::json_path`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::json_path::run(data));
