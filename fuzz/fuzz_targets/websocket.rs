//! [`coracle_fuzz::websocket`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::websocket::run(data));
