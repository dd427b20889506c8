#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    postern_client::fuzzing::sync_token(bytes);
    postern_rooms::fuzzing::timeline_token(bytes);
});
