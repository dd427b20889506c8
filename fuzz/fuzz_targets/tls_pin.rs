#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_border::fuzzing::tls_pin(bytes));
