//! Fuzzes the response side with the checks that the ordinary tests use too.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::response_input(data));
