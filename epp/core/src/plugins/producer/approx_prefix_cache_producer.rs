//! `approx-prefix-cache-producer`: guesses cached prefixes from where requests were sent before.
//!
//! | parameter | default |
//! |---|---|
//! | `autoTune` | true: block size and capacity from the engines' cache layout |
//! | `blockSizeTokens` | 16; at least 64 are used |
//! | `blockSize` | deprecated name of `blockSizeTokens` |
//! | `maxPrefixTokensToMatch` | 131072 |
//! | `maxPrefixBlocksToMatch` | 2048, used only when the token cap is 0; both 0 is unlimited |
//! | `lruCapacityPerServer` | 31250 blocks |
//!
//! The prompt, with what `token-producer` makes of its media, is cut into blocks whose chained hashes are looked up in the index of `llmd-kv`; each
//! prompt of a request is independent. When the first byte of the answer arrives, the blocks are
//! written for the primary endpoint and for that of the profile `prefill`: before it nobody has
//! computed them, and a burst with one cold prefix spreads instead of following its first request.
//! An answer with an error writes nothing. With `--upstream-timing` they are written at the pick. A block is kept per endpoint until the engine's
//! block count (or `lruCapacityPerServer`) is reached, least recently used first.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::{DataProducer, EndpointObserver, PreRequest, SchedulingResult};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Metadata, MetricsScope, Need, Plugin, PluginType,
    PrefixMatch, Rejection, RequestChanges, ResponseEnd, ResponseHead, ResponseHook, SlotId, Snapshot,
    Stability, Timing, TypedName,
};
use llmd_kv::{BYTES_PER_TOKEN, Matches, PrefixIndex, hash::root, hash_prompt};
use prometheus::{Histogram, HistogramVec, IntGauge, IntGaugeVec};
use serde::Deserialize;

use crate::metrics::{Family, TWIN_PREFIX};
use crate::plugins::prompt::Prompts;

/// Type name in configurations.
pub const TYPE: &str = "approx-prefix-cache-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[PREFIX_CACHE_MATCH_INFO],
    build: |context| {
        let producer = Arc::new(ApproxPrefixCacheProducer::new(context)?);
        Ok(Plugin {
            producer: Some(producer.clone()),
            pre_request: Some(producer.clone()),
            observer: Some(producer),
            ..Plugin::default()
        })
    },
};

/// The registry line of the type for endpoints that are clusters: nobody's default.
pub const MULTICLUSTER: PluginType = PluginType {
    name: "multicluster-approx-prefix-cache-producer",
    stability: Stability::Alpha,
    default_producer_of: &[],
    ..PLUGIN
};

/// Smaller blocks cost more to hash than they gain.
const MIN_BLOCK_TOKENS: usize = 64;
const PREFILL_PROFILE: &str = "prefill";
const HASHES: &str = "PrefixHashes";
const LABELS: [&str; 2] = ["plugin_name", "plugin_type"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    auto_tune: bool,
    block_size_tokens: Option<usize>,
    block_size: Option<usize>,
    max_prefix_tokens_to_match: usize,
    max_prefix_blocks_to_match: usize,
    lru_capacity_per_server: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            auto_tune: true,
            block_size_tokens: None,
            block_size: None,
            max_prefix_tokens_to_match: 131_072,
            max_prefix_blocks_to_match: 2048,
            lru_capacity_per_server: 31_250,
        }
    }
}

/// Hashes of one request: the prompts one after the other.
#[derive(Debug, Default)]
struct PrefixHashes {
    hashes: Vec<u64>,
    /// End of each prompt in `hashes`.
    ends: Vec<usize>,
    matches: Matches,
}

#[derive(Debug)]
struct ApproxPrefixCacheProducer {
    auto_tune: bool,
    block_tokens: usize,
    max_tokens: usize,
    max_blocks: usize,
    capacity: usize,
    matched: AttributeKey<PrefixMatch>,
    hashes: AttributeKey<PrefixHashes>,
    prompts: Prompts,
    timing: Timing,
    index: Arc<Index>,
}

/// The blocks, and the series that count them.
#[derive(Debug)]
struct Index {
    blocks: PrefixIndex,
    metrics: Series,
}

impl Index {
    fn write(&self, computed: &Computed) {
        let mut from = 0;
        for end in computed.ends.iter() {
            self.blocks
                .insert(computed.slot, &computed.hashes[from..*end], computed.capacity);
            from = *end;
        }
        self.metrics.size(self.blocks.len());
    }
}

/// Blocks that an endpoint computes for a request.
#[derive(Debug)]
struct Computed {
    slot: SlotId,
    hashes: Arc<[u64]>,
    /// End of each prompt in `hashes`.
    ends: Arc<[usize]>,
    capacity: usize,
}

/// Writes blocks once the engine shows that it has them.
#[derive(Debug)]
struct Pending {
    index: Arc<Index>,
    computed: Vec<Computed>,
}

impl Pending {
    fn write(&mut self) {
        for computed in self.computed.drain(..) {
            self.index.write(&computed);
        }
    }
}

impl ResponseHook for Pending {
    fn on_headers(&mut self, head: &ResponseHead<'_>, _: &mut Vec<(Arc<str>, String)>) {
        if head.status >= 400 {
            self.computed.clear();
        }
    }

    fn on_first_chunk(&mut self, _: Instant) {
        self.write();
    }

    /// A response of which no chunk was seen.
    fn on_complete(&mut self, _: Instant, _: &ResponseEnd, _: &mut Vec<Metadata>) {
        self.write();
    }
}

impl ApproxPrefixCacheProducer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters {
            auto_tune,
            block_size_tokens,
            block_size,
            max_prefix_tokens_to_match,
            max_prefix_blocks_to_match,
            lru_capacity_per_server,
        } = context.parameters()?;
        if block_size.is_some() {
            context.warn_renamed("blockSize", "blockSizeTokens");
        }
        let block_tokens = block_size_tokens.or(block_size).unwrap_or(16);
        if block_tokens == 0 {
            return Err(BuildError::value("blockSizeTokens", "must be greater than 0"));
        }
        if lru_capacity_per_server == 0 {
            return Err(BuildError::value(
                "lruCapacityPerServer",
                "must be greater than 0",
            ));
        }
        let indexer_metrics = context.metrics(IndexerMetrics::register)?;
        Ok(Self {
            auto_tune,
            block_tokens,
            max_tokens: max_prefix_tokens_to_match,
            max_blocks: max_prefix_blocks_to_match,
            capacity: lru_capacity_per_server,
            matched: context.produces(PREFIX_CACHE_MATCH_INFO)?,
            hashes: context.produces(HASHES)?,
            prompts: Prompts::read_by(context, Need::Required)?,
            timing: context.state.timing,
            index: Arc::new(Index {
                blocks: PrefixIndex::default(),
                metrics: indexer_metrics.series(context.name),
            }),
        })
    }

    fn effective_block_tokens(&self, snapshot: &Snapshot, candidates: &[u32]) -> usize {
        let first = candidates.first().map(|index| &snapshot.records[*index as usize]);
        let engine = first.map_or(0, |record| record.cache_block_size as usize);
        let wanted = if self.auto_tune && engine > 0 {
            engine
        } else {
            self.block_tokens
        };
        wanted.max(MIN_BLOCK_TOKENS)
    }

    fn block_limit(&self, block_tokens: usize) -> usize {
        match (self.max_tokens, self.max_blocks) {
            (0, 0) => usize::MAX,
            (0, blocks) => blocks,
            (tokens, _) => tokens / block_tokens,
        }
    }

    fn endpoint_capacity(&self, snapshot: &Snapshot, index: u32) -> usize {
        let blocks = snapshot.records[index as usize].cache_num_blocks as usize;
        if self.auto_tune && blocks > 0 {
            blocks
        } else {
            self.capacity
        }
    }
}

impl DataProducer for ApproxPrefixCacheProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, candidates: &[u32]) {
        let (request, snapshot) = (cycle.request, cycle.snapshot);
        let block_tokens = self.effective_block_tokens(snapshot, candidates);
        let limit = self.block_limit(block_tokens);
        let salt = request.facts.cache_salt.as_deref().unwrap_or_default();
        let root = root(&request.target_model, salt);
        let mut input_tokens = 0;
        cycle.attributes.fill(self.hashes, |state, others| {
            let PrefixHashes {
                hashes,
                ends,
                matches,
            } = state;
            hashes.clear();
            ends.clear();
            matches.clear();
            for prompt in self.prompts.of(request, others) {
                let from = hashes.len();
                input_tokens += hash_prompt(root, prompt, block_tokens, limit, hashes).tokens;
                ends.push(hashes.len());
                self.index.blocks.lookup(&hashes[from..], matches);
            }
            true
        });
        cycle.attributes.fill(self.matched, |matched, others| {
            let Some(state) = others.get(self.hashes) else {
                return false;
            };
            matched.total = state.hashes.len() as u32;
            matched.block_tokens = block_tokens as u32;
            matched.input_tokens = input_tokens;
            matched.matched.clear();
            if state.matches.is_empty() {
                matched.matched.resize(snapshot.len(), 0);
            } else {
                let blocks = snapshot.slot_ids.iter().map(|slot| state.matches.blocks(*slot));
                matched.matched.extend(blocks);
            }
            true
        });
    }
}

impl PreRequest for ApproxPrefixCacheProducer {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let Some(target) = result.target() else {
            return Ok(());
        };
        let (Some(matched), Some(state)) = (
            cycle.attributes.get(self.matched),
            cycle.attributes.get(self.hashes),
        ) else {
            return Ok(());
        };
        self.index.metrics.matched(matched, target);
        let prefill = result
            .first_endpoints()
            .find(|(profile, _)| *profile == PREFILL_PROFILE);
        let prefill = prefill.map(|(_, index)| index).filter(|index| *index != target);
        let (hashes, ends): (Arc<[u64]>, Arc<[usize]>) =
            (state.hashes.as_slice().into(), state.ends.as_slice().into());
        let computed = [Some(target), prefill].into_iter().flatten();
        let mut pending = Pending {
            index: Arc::clone(&self.index),
            computed: computed
                .map(|index| Computed {
                    slot: cycle.snapshot.slot_ids[index as usize],
                    hashes: Arc::clone(&hashes),
                    ends: Arc::clone(&ends),
                    capacity: self.endpoint_capacity(cycle.snapshot, index),
                })
                .collect(),
        };
        match self.timing {
            Timing::Upstream => pending.write(),
            Timing::Live if hashes.is_empty() => {}
            Timing::Live => changes.hooks.push(Box::new(pending)),
        }
        Ok(())
    }
}

impl EndpointObserver for ApproxPrefixCacheProducer {
    fn retain(&self, live: &[SlotId]) {
        self.index.blocks.retain(live);
        self.index.metrics.size(self.index.blocks.len());
    }
}

/// Metric families of all instances.
struct IndexerMetrics {
    size: IntGaugeVec,
    hit_ratio: HistogramVec,
    hit_bytes: HistogramVec,
}

impl IndexerMetrics {
    fn register(scope: &MetricsScope) -> Result<Self, prometheus::Error> {
        let tenths: Vec<f64> = (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect();
        let mut bytes = vec![0.0];
        bytes.extend((4..=16).map(|power| f64::from(1_u32 << power)));
        let family = |name: &'static str, text| Family::new(name, text, &LABELS).twin(TWIN_PREFIX, name, &[]);
        let size_text = "Size of the prefix indexer in blocks, counted once per endpoint.";
        Ok(Self {
            size: family("prefix_indexer_size", size_text).gauge(scope)?,
            hit_ratio: family(
                "prefix_indexer_hit_ratio",
                "Ratio of matched to total prefix length.",
            )
            .histogram(scope, &tenths)?,
            hit_bytes: family(
                "prefix_indexer_hit_bytes",
                "Length of the matched prefix in bytes.",
            )
            .histogram(scope, &bytes)?,
        })
    }

    fn series(&self, name: &TypedName) -> Series {
        let labels = [&*name.name, name.plugin_type];
        Series {
            size: self.size.with_label_values(&labels),
            hit_ratio: self.hit_ratio.with_label_values(&labels),
            hit_bytes: self.hit_bytes.with_label_values(&labels),
        }
    }
}

/// Metric series of one instance.
#[derive(Debug)]
struct Series {
    size: IntGauge,
    hit_ratio: Histogram,
    hit_bytes: Histogram,
}

impl Series {
    fn size(&self, blocks: usize) {
        self.size.set(i64::try_from(blocks).unwrap_or(i64::MAX));
    }

    fn matched(&self, matched: &PrefixMatch, target: u32) {
        if matched.total > 0 {
            self.hit_ratio.observe(matched.ratio(target));
        }
        let bytes = u64::from(matched.matched_blocks(target))
            * u64::from(matched.block_tokens)
            * BYTES_PER_TOKEN as u64;
        self.hit_bytes.observe(bytes as f64);
    }
}

#[cfg(test)]
mod tests;
