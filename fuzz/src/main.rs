//! The entry that libFuzzer calls. What is tried stands in `decode.rs`, which the tests of
//! `foldstream-core` run over the kept corpus too.

#![no_main]

mod decode;

// libFuzzer's own hook ends the process at any panic, also at one that the decoder catches; one
// that nobody catches ends it all the same.
static QUIET: std::sync::Once = std::sync::Once::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    decode::attempt(data);
});
