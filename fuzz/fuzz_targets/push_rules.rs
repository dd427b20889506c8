#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_push::fuzzing::push_rules(bytes));
