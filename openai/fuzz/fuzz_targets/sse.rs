//! Fuzzes the cutting of event streams with the checks that the ordinary tests use too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llmd_openai_fuzz::streams::sse_input(data));
