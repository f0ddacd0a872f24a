//! One decision of upstream's default configuration; and of six plugins; budget: 50 µs over 1,000 endpoints, and as
//! many allocations over 1,000 endpoints as over 10.

use std::sync::Arc;
use std::time::Instant;

use divan::Bencher;
use llmd_epp_api::{
    Clock, Endpoint, EndpointName, EndpointSpec, Headers, InferenceRequest, MetricsRecord, Objective,
    SlotTable, Snapshot,
};
use llmd_epp_core::{BuildEnv, EndpointPickerConfig, Scheduler};
use llmd_openai::{Prompt, PromptInput, RequestFacts};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

#[derive(Debug)]
struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

fn pool(size: u32, load: impl Fn(u32) -> u32) -> Snapshot {
    let slots = SlotTable::default();
    let now = Instant::now();
    let members = (0..size).map(|index| {
        let name = EndpointName::new("default", format!("engine-{index:04}"));
        let slot = slots.slot(&name);
        let spec = EndpointSpec {
            name,
            pod: "engine".into(),
            address: [10, 0, (index / 256) as u8, (index % 256) as u8].into(),
            port: 8000,
            rank: 0,
            reach: llmd_epp_api::Reach::default(),
            labels: std::collections::BTreeMap::default(),
        };
        let record = MetricsRecord {
            waiting_queue_size: load(index),
            kv_cache_usage: f64::from(load(index) % 100) / 100.0,
            cache_block_size: 16,
            cache_num_blocks: 20_000,
            update_time: Some(now),
            ..MetricsRecord::default()
        };
        (Arc::new(Endpoint::new(spec, slot)), Arc::new(record))
    });
    Snapshot::new(1, members.collect())
}

fn request(bytes: usize) -> InferenceRequest {
    InferenceRequest {
        request_id: "r".into(),
        incoming_model: "m".into(),
        target_model: "m".into(),
        objective: Objective {
            priority: 0,
            fairness_id: "default-flow".into(),
        },
        headers: Headers::default(),
        tokens: None,
        size_bytes: bytes,
        facts: RequestFacts {
            prompts: vec![Prompt {
                input: PromptInput::Text((0..bytes).map(|i| (i * 31 % 251) as u8).collect()),
            }],
            ..RequestFacts::default()
        },
        gathered: Vec::new(),
    }
}

fn scheduler(config: &EndpointPickerConfig) -> Scheduler {
    let env = BuildEnv {
        clock: Some(Arc::new(Monotonic)),
        ..BuildEnv::detached()
    };
    Scheduler::build(config, env).expect("the configuration is valid")
}

fn decide(bencher: Bencher<'_, '_>, config: &EndpointPickerConfig, snapshot: &Snapshot, bytes: usize) {
    let scheduler = scheduler(config);
    let request = request(bytes);
    bencher.bench_local(|| {
        let decision = scheduler.schedule(Instant::now(), divan::black_box(&request), snapshot, None);
        drop(divan::black_box(decision));
    });
}

#[divan::bench(args = [10, 100, 1000])]
fn default_config_1_kb(bencher: Bencher<'_, '_>, endpoints: u32) {
    let snapshot = pool(endpoints, |index| index * 7 % 13);
    decide(
        bencher,
        &EndpointPickerConfig::upstream_default(),
        &snapshot,
        1024,
    );
}

/// Without a prompt all totals are equal: the tie-break reads every endpoint's load.
#[divan::bench(args = [1000])]
fn default_config_all_tied(bencher: Bencher<'_, '_>, endpoints: u32) {
    let snapshot = pool(endpoints, |_| 0);
    decide(
        bencher,
        &EndpointPickerConfig::upstream_default(),
        &snapshot,
        1024,
    );
}

#[divan::bench(args = [1000])]
fn default_config_220_kb(bencher: Bencher<'_, '_>, endpoints: u32) {
    let snapshot = pool(endpoints, |index| index * 7 % 13);
    decide(
        bencher,
        &EndpointPickerConfig::upstream_default(),
        &snapshot,
        220_000,
    );
}

#[divan::bench(args = [1000])]
fn optimized_baseline_1_kb(bencher: Bencher<'_, '_>, endpoints: u32) {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-affinity-filter}, {type: token-load-scorer}, {type: max-score-picker}]
";
    let config = EndpointPickerConfig::decode(text).expect("decodes").config;
    decide(bencher, &config, &pool(endpoints, |index| index * 7 % 13), 1024);
}

/// Two filters that keep everything, three scorers and a picker: each looks at every endpoint.
#[divan::bench(args = [1000])]
fn six_plugins_1_kb(bencher: Bencher<'_, '_>, endpoints: u32) {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: decode-filter}
- {type: prefix-cache-affinity-filter}
- {type: prefix-cache-scorer}
- {type: load-aware-scorer}
- {type: active-request-scorer}
- {type: weighted-random-picker}
";
    let config = EndpointPickerConfig::decode(text).expect("decodes").config;
    decide(bencher, &config, &pool(endpoints, |index| index * 7 % 13), 1024);
}
