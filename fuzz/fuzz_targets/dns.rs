//! [`coracle_fuzz::dns`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::dns::run(data));
