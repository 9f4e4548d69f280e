//! [`coracle_fuzz::protobuf`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::protobuf::run(data));
