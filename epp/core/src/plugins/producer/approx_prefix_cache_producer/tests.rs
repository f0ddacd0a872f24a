//! Unit tests of the approximate prefix producer.

use llmd_epp_api::plugin::ProfileRun;
use llmd_epp_api::registry::BuildState;
use llmd_epp_api::{Attributes, DataKey, MetricsScope};
use llmd_openai::{Prompt, PromptInput};
use serde_json::json;

use super::*;
use crate::plugins::testing::{Pool, build_error, build_in};

struct Bench {
    plugin: Plugin,
    key: AttributeKey<PrefixMatch>,
    attributes: Attributes,
    registry: prometheus::Registry,
}

fn bench(parameters: serde_json::Value) -> Bench {
    let registry = prometheus::Registry::new();
    let mut state = BuildState::new(MetricsScope::new(registry.clone(), true));
    state.timing = Timing::Upstream;
    let plugin = build_in(&mut state, &PLUGIN, &parameters).unwrap();
    let key = DataKey {
        attribute: PREFIX_CACHE_MATCH_INFO,
        producer: TYPE.into(),
    };
    let key = state.layout.resolve(key).unwrap();
    let attributes = state.layout.attributes();
    Bench {
        plugin,
        key,
        attributes,
        registry,
    }
}

impl Bench {
    /// Looks the pool's request up and, with a target, sends it there.
    fn request(&mut self, pool: &Pool, target: Option<u32>) -> (Vec<u32>, u32, u32) {
        self.attributes.clear();
        let all: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
        let mut cycle = Cycle {
            request: &pool.request,
            snapshot: &pool.snapshot,
            now: pool.now,
            attributes: &mut self.attributes,
        };
        self.plugin.producer.as_ref().unwrap().produce(&mut cycle, &all);
        if let Some(target) = target {
            let runs = [ProfileRun {
                picked: vec![target],
                ..ProfileRun::default()
            }];
            let profiles = ["default".into()];
            let result = SchedulingResult {
                profiles: &profiles,
                runs: &runs,
                primary: 0,
            };
            let pre_request = self.plugin.pre_request.as_ref().unwrap();
            pre_request
                .pre_request(&cycle, result, &mut RequestChanges::default())
                .unwrap();
        }
        let matched = self.attributes.get(self.key).unwrap();
        (matched.matched.clone(), matched.total, matched.block_tokens)
    }
}

fn pool(size: usize, text: &str) -> Pool {
    let mut pool = Pool::of(size);
    pool.request = crate::plugins::testing::request(text);
    pool
}

#[test]
fn a_repeated_prompt_is_found_where_it_was_sent() {
    let mut bench = bench(json!({}));
    let text = "x".repeat(600);
    assert_eq!(bench.request(&pool(2, &text), Some(1)), (vec![0, 0], 3, 64));
    assert_eq!(bench.request(&pool(2, &text), None).0, [0, 3]);
    let longer = format!("{}{}", "x".repeat(512), "y".repeat(600));
    assert_eq!(bench.request(&pool(2, &longer), None).0, [0, 2]);
}

#[test]
fn model_and_salt_separate_prefixes() {
    let mut bench = bench(json!({}));
    let mut pool = pool(1, &"x".repeat(600));
    bench.request(&pool, Some(0));
    pool.request.target_model = "other".into();
    assert_eq!(bench.request(&pool, None).0, [0]);
    pool.request.target_model = "m".into();
    pool.request.facts.cache_salt = Some("tenant".into());
    assert_eq!(bench.request(&pool, None).0, [0]);
}

#[test]
fn every_prompt_has_its_own_chain() {
    let mut bench = bench(json!({}));
    bench.request(&pool(1, &"x".repeat(256)), Some(0));
    let mut both = pool(1, &"y".repeat(256));
    both.request.facts.prompts.push(Prompt {
        input: PromptInput::Text(vec![b'x'; 256]),
    });
    assert_eq!(bench.request(&both, None), (vec![1], 2, 64));
}

#[test]
fn the_engine_gives_block_size_and_capacity_when_tuned() {
    let text = "x".repeat(256 * 8);
    let tuned = |size: u32, blocks: u32| {
        pool(1, &text).record(0, |record| {
            record.cache_block_size = size;
            record.cache_num_blocks = blocks;
        })
    };
    let retuned = |pool: Pool| {
        let mut pool = pool;
        pool.request = crate::plugins::testing::request(&"x".repeat(256 * 8));
        pool
    };
    let mut auto = bench(json!({}));
    assert_eq!(auto.request(&retuned(tuned(16, 0)), None).2, 64);
    assert_eq!(auto.request(&retuned(tuned(128, 0)), None).2, 128);
    // Eight blocks in a cache of three: the last three stay, so the chain misses at once.
    auto.request(&retuned(tuned(16, 3)), Some(0));
    assert_eq!(auto.request(&retuned(tuned(16, 3)), None).0, [0]);
    let mut fixed = bench(json!({"autoTune": false, "blockSizeTokens": 256}));
    assert_eq!(fixed.request(&retuned(tuned(16, 3)), Some(0)).2, 256);
    assert_eq!(fixed.request(&retuned(tuned(16, 3)), None).0, [2]);
}

#[test]
fn limits_bound_the_blocks() {
    let text = "x".repeat(256 * 10);
    let total = |parameters| bench(parameters).request(&pool(1, &text), None).1;
    assert_eq!(total(json!({})), 10);
    assert_eq!(total(json!({"maxPrefixTokensToMatch": 192})), 3);
    assert_eq!(
        total(json!({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 4})),
        4
    );
    assert_eq!(
        total(json!({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 0})),
        10
    );
}

#[test]
fn gone_endpoints_are_forgotten_and_metrics_follow() {
    let mut bench = bench(json!({}));
    let text = "x".repeat(512);
    let pool = pool(2, &text);
    bench.request(&pool, Some(0));
    bench.request(&pool, Some(0));
    let page = |bench: &Bench| {
        let families = bench.registry.gather();
        let mut text = String::new();
        prometheus::TextEncoder::new()
            .encode_utf8(&families, &mut text)
            .unwrap();
        text
    };
    let before = page(&bench);
    let labels =
        "{plugin_name=\"approx-prefix-cache-producer\",plugin_type=\"approx-prefix-cache-producer\"}";
    assert!(
        before.contains(&format!("llm_d_epp_prefix_indexer_size{labels} 2")),
        "{before}"
    );
    assert!(
        before.contains("inference_extension_prefix_indexer_size 2"),
        "{before}"
    );
    assert!(
        before.contains("inference_extension_prefix_indexer_hit_ratio_sum 1"),
        "{before}"
    );
    assert!(
        before.contains(&format!("llm_d_epp_prefix_indexer_hit_bytes_sum{labels} 512")),
        "{before}"
    );
    bench
        .plugin
        .observer
        .as_ref()
        .unwrap()
        .retain(&[pool.snapshot.slot_ids[1]]);
    assert!(page(&bench).contains(&format!("llm_d_epp_prefix_indexer_size{labels} 0")));
    assert_eq!(bench.request(&pool, None).0, [0, 0]);
}

#[test]
fn a_block_size_of_zero_is_refused() {
    assert!(build_error(&PLUGIN, json!({"blockSizeTokens": 0})).contains("blockSizeTokens"));
    assert!(build_error(&PLUGIN, json!({"blockSizeToken": 16})).contains("blockSizeToken"));
}
