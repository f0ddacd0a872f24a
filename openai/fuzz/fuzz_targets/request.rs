//! Fuzzes the request side with the checks that the ordinary tests use too.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::request_input(data));
