#![no_main]

#[path = "../../../net/tests/hub/far.rs"]
mod far;
#[path = "../../../net/tests/fuzzed/v2.rs"]
mod v2;

libfuzzer_sys::fuzz_target!(|data: &[u8]| v2::v2(data));
