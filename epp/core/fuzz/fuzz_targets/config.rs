//! Fuzzes the decoder and the assembly of configurations with the checks that the ordinary tests use too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llmd_epp_core_fuzz::config(data));
