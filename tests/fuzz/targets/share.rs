#![no_main]

#[path = "../../../net/tests/fuzzed/share.rs"]
mod share;

libfuzzer_sys::fuzz_target!(|data: &[u8]| share::share(data));
