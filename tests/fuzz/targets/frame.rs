#![no_main]

#[path = "../../../net/tests/fuzzed/frame.rs"]
mod frame;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frame::frame(data));
