//! Fuzzes the response side with the checks that the ordinary tests use too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llmd_openai_fuzz::response_input(data));
