#![no_main]

use rockpool::stratum;

#[path = "../../../src/stratum/tests/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::line(data));
