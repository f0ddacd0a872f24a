//! Fuzzes a stream of ext-proc messages with the checks that the ordinary tests use too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llmd_epp_fuzz::ext_proc(data));
