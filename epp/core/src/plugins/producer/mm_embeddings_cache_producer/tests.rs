//! What is found after requests were sent.

use llmd_epp_api::attribute::{MediaFeature, TOKENIZED_PROMPT, TokenizedInput};
use llmd_epp_api::{Attributes, DataKey, PromptInput, TokenizedPrompt};
use serde_json::json;

use super::*;
use crate::plugins::testing::{Pool, build_error, build_in, result_of, state};

struct Bench {
    plugin: Plugin,
    tokens: AttributeKey<TokenizedPrompt>,
    cached: AttributeKey<EncoderCacheMatch>,
    attributes: Attributes,
}

fn bench(parameters: serde_json::Value, timing: Timing) -> Bench {
    let mut state = state();
    state.timing = timing;
    let plugin = build_in(&mut state, &PLUGIN, &parameters).unwrap();
    let key = |attribute, producer: &str| DataKey {
        attribute,
        producer: producer.into(),
    };
    let layout = &mut state.layout;
    let tokens = layout.resolve(key(TOKENIZED_PROMPT, "token-producer")).unwrap();
    let cached = layout.resolve(key(ENCODER_CACHE_MATCH_INFO, TYPE)).unwrap();
    Bench {
        plugin,
        tokens,
        cached,
        attributes: state.layout.attributes(),
    }
}

impl Bench {
    /// Looks media of (hash, tokens) up and sends them where these profiles went; the first one is primary.
    fn request(
        &mut self,
        pool: &Pool,
        media: &[(&str, u64)],
        profiles: &[(&str, &[u32])],
    ) -> (Option<(Vec<u64>, u64)>, RequestChanges) {
        let features = media.iter().map(|(hash, length)| MediaFeature {
            modality: "image".into(),
            hash: (*hash).into(),
            offset: 0,
            length: *length,
        });
        let prompt = TokenizedInput {
            input: PromptInput::Text(Vec::new()),
            features: features.collect(),
        };
        self.attributes.clear();
        self.attributes.fill(self.tokens, |tokens, _| {
            tokens.prompts = [prompt].into();
            true
        });
        let mut cycle = Cycle {
            request: &pool.request,
            snapshot: &pool.snapshot,
            now: pool.now,
            attributes: &mut self.attributes,
        };
        self.plugin.producer.as_ref().unwrap().produce(&mut cycle, &[]);
        let mut changes = RequestChanges::default();
        let pre_request = self.plugin.pre_request.as_ref().unwrap();
        result_of(profiles, 0, |result| {
            pre_request.pre_request(&cycle, result, &mut changes)
        })
        .unwrap();
        let cached = cycle.attributes.get(self.cached);
        (
            cached.map(|cached| (cached.matched.clone(), cached.total)),
            changes,
        )
    }
}

#[test]
fn media_are_where_they_were_encoded_once_the_answer_begins() {
    let pool = Pool::of(3);
    let mut bench = bench(json!({}), Timing::Live);
    let decode: &[(&str, &[u32])] = &[("decode", &[0]), ("prefill", &[1]), ("encode", &[2])];
    let (cached, changes) = bench.request(&pool, &[("a", 100), ("b", 50)], decode);
    assert_eq!(cached, Some((vec![0, 0, 0], 150)));
    let mut hooks = changes.hooks;
    assert_eq!(
        bench.request(&pool, &[("a", 100)], &[("decode", &[1])]).0,
        Some((vec![0, 0, 0], 100))
    );
    hooks[0].on_first_chunk(pool.now);
    let (cached, _) = bench.request(&pool, &[("b", 50), ("c", 7)], &[("decode", &[1])]);
    assert_eq!(cached, Some((vec![50, 0, 50], 57)));
    assert_eq!(bench.request(&pool, &[], decode).0, None);
    bench
        .plugin
        .observer
        .as_ref()
        .unwrap()
        .retain(&[pool.snapshot.slot_ids[2]]);
    let (cached, _) = bench.request(&pool, &[("a", 100)], &[("decode", &[1])]);
    assert_eq!(cached, Some((vec![0, 0, 100], 100)));
}

#[test]
fn an_error_of_the_engine_writes_nothing() {
    let pool = Pool::of(1);
    let mut bench = bench(json!({}), Timing::Live);
    let (_, mut changes) = bench.request(&pool, &[("a", 1)], &[("default", &[0])]);
    changes.hooks[0].on_headers(&ResponseHead::new(503, None), &mut Vec::new());
    changes.hooks[0].on_first_chunk(pool.now);
    let (cached, _) = bench.request(&pool, &[("a", 1)], &[("default", &[0])]);
    assert_eq!(cached, Some((vec![0], 1)));
}

#[test]
fn the_least_recently_used_go_first_and_upstream_writes_at_the_pick() {
    let pool = Pool::of(1);
    // Two embeddings.
    let mut bench = bench(json!({"cacheSizeInMBPerServer": 5}), Timing::Upstream);
    for hash in ["a", "b", "a", "c"] {
        let (_, changes) = bench.request(&pool, &[(hash, 1)], &[("default", &[0])]);
        assert!(changes.hooks.is_empty());
    }
    let (cached, _) = bench.request(&pool, &[("a", 1), ("b", 10), ("c", 100)], &[("default", &[0])]);
    assert_eq!(cached, Some((vec![101], 111)));
    assert!(build_error(&PLUGIN, json!({"cacheSizeInMBPerServer": 1})).contains("cacheSizeInMBPerServer"));
}
