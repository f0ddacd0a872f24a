//! Fuzzes the readers of engines' pages with the checks that the ordinary tests use too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llmd_epp_core_fuzz::metrics_page(data));
