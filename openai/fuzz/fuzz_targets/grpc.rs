//! Fuzzes gRPC frames and their messages with the checks that the ordinary tests use too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llmd_openai_fuzz::streams::grpc_input(data));
