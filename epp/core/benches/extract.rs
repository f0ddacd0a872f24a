//! Cost of reading one metrics page. Budget: 15 µs for 32 KB, release, one core.

use std::time::Instant;

use llmd_epp_api::MetricsRecord;
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::{CoreMetricsExtractor, Parameters, Scratch};

const PAGE: &[u8] = include_bytes!("../testdata/vllm.prom");

fn main() {
    divan::main();
}

#[divan::bench]
fn vllm_page(bencher: divan::Bencher<'_, '_>) {
    let extractor = CoreMetricsExtractor::new(&Parameters::default()).expect("built-in engines");
    let engine = extractor.engine_of(&std::collections::BTreeMap::new());
    let now = Instant::now();
    let mut scratch = Scratch::default();
    let mut record = MetricsRecord::default();
    bencher
        .counter(divan::counter::BytesCount::of_slice(PAGE))
        .bench_local(move || {
            extractor
                .extract(engine, divan::black_box(PAGE), now, &mut scratch, &mut record)
                .failures
        });
}
