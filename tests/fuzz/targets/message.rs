#![no_main]

#[path = "../../../net/tests/fuzzed/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| message::message(data));
