#![no_main]

#[path = "../../../net/tests/fuzzed/hub.rs"]
mod hub;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub::hub(data));
