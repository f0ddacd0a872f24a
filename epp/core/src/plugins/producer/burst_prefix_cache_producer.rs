//! `burst-prefix-cache-producer`: puts requests that share a prompt and come at once onto the same endpoints.
//!
//! | parameter | default |
//! |---|---|
//! | `windowDurationMs` | 100, 1 to 10000: how long requests wait for each other |
//! | `maxPerReplica` | -1, unlimited: most requests of one prompt per endpoint |
//! | `blockSizeTokens` | 64 |
//! | `maxPrefixTokensToMatch` | 0: 2048 blocks |
//! | `minColocateBlocks` | 0: only equal prompts are put together |
//! | `maxBatchSize` | 1000, -1 is unlimited: requests beyond it do not wait and are not assigned |
//! | `balanceBy` | `requests`; or `tokens` of their prompts |
//!
//! ```text
//!  gather: the first request opens a window ─▶ others join ─▶ its end: [`assign`] ─▶ produce: a full match there, 0 elsewhere
//! ```
//!
//! It writes `PrefixCacheMatchInfo` of its own; point a `prefix-cache-scorer` at it (`prefixMatchInfoProducerName`).

mod assign;
mod batch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::{DataProducer, Gather};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, InferenceRequest, Plugin, PluginType, PrefixMatch,
    Snapshot, Stability,
};
use llmd_kv::hash::root;
use llmd_kv::hash_prompt;
use serde::Deserialize;

use assign::{Entry, Rules};
use batch::{Batch, Ticket};

/// Type name in configurations.
pub const TYPE: &str = "burst-prefix-cache-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let producer = Arc::new(BurstPrefixCacheProducer::new(context)?);
        Ok(Plugin {
            gather: Some(producer.clone()),
            producer: Some(producer),
            ..Plugin::default()
        })
    },
};

const DEFAULT_BLOCKS: usize = 2048;
const LONGEST_WINDOW_MS: u64 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    window_duration_ms: u64,
    max_per_replica: i64,
    block_size_tokens: usize,
    max_prefix_tokens_to_match: usize,
    min_colocate_blocks: usize,
    max_batch_size: i64,
    balance_by: Balance,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Balance {
    #[default]
    Requests,
    Tokens,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            window_duration_ms: 100,
            max_per_replica: -1,
            block_size_tokens: 64,
            max_prefix_tokens_to_match: 0,
            min_colocate_blocks: 0,
            max_batch_size: 1000,
            balance_by: Balance::default(),
        }
    }
}

struct BurstPrefixCacheProducer {
    name: Arc<str>,
    window: Duration,
    rules: Rules,
    block_tokens: usize,
    max_blocks: usize,
    max_batch: usize,
    balance: Balance,
    matched: AttributeKey<PrefixMatch>,
    current: Mutex<Option<Arc<Batch>>>,
}

/// -1 is unlimited.
fn limit(field: &str, value: i64) -> Result<usize, BuildError> {
    match value {
        -1 => Ok(usize::MAX),
        limit => usize::try_from(limit)
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| BuildError::value(field, "must be at least 1, or -1 for no limit")),
    }
}

impl BurstPrefixCacheProducer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let parameters: Parameters = context.parameters()?;
        if !(1..=LONGEST_WINDOW_MS).contains(&parameters.window_duration_ms) {
            return Err(BuildError::value("windowDurationMs", "must be in 1..=10000"));
        }
        if parameters.block_size_tokens == 0 {
            return Err(BuildError::value("blockSizeTokens", "must be greater than 0"));
        }
        let max_blocks = match parameters.max_prefix_tokens_to_match {
            0 => DEFAULT_BLOCKS,
            tokens => tokens / parameters.block_size_tokens,
        };
        Ok(Self {
            name: context.name.name.clone(),
            window: Duration::from_millis(parameters.window_duration_ms),
            rules: Rules {
                max_per_replica: limit("maxPerReplica", parameters.max_per_replica)?,
                min_colocate_blocks: parameters.min_colocate_blocks,
            },
            block_tokens: parameters.block_size_tokens,
            max_blocks,
            max_batch: limit("maxBatchSize", parameters.max_batch_size)?,
            balance: parameters.balance_by,
            matched: context.produces(PREFIX_CACHE_MATCH_INFO)?,
            current: Mutex::default(),
        })
    }

    /// The request's blocks and tokens.
    fn entry(&self, request: &InferenceRequest) -> (Entry, u64) {
        let salt = request.facts.cache_salt.as_deref().unwrap_or_default();
        let root = root(&request.target_model, salt);
        let (mut hashes, mut ends, mut tokens) = (Vec::new(), Vec::new(), 0);
        for prompt in &request.facts.prompts {
            tokens += hash_prompt(
                root,
                &prompt.input,
                self.block_tokens,
                self.max_blocks,
                &mut hashes,
            )
            .tokens;
            ends.push(hashes.len());
        }
        let entry = Entry {
            hashes: hashes.into(),
            ends: ends.into(),
            media: request.facts.media.iter().map(|medium| medium.hash).collect(),
            weight: match self.balance {
                Balance::Requests => 1,
                Balance::Tokens => tokens,
            },
        };
        (entry, tokens)
    }

    /// The batch of requests that come now.
    fn batch(&self, now: Instant, snapshot: &Snapshot) -> Arc<Batch> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = current.as_ref().filter(|batch| now < batch.due) {
            return Arc::clone(batch);
        }
        let batch = Arc::new(Batch::new(&self.name, now + self.window, self.rules, snapshot));
        *current = Some(Arc::clone(&batch));
        batch
    }
}

impl Gather for BurstPrefixCacheProducer {
    fn gather(&self, now: Instant, request: &mut InferenceRequest, snapshot: &Snapshot) -> Option<Instant> {
        let (entry, tokens) = self.entry(request);
        if entry.hashes.is_empty() || snapshot.is_empty() {
            return None;
        }
        let batch = self.batch(now, snapshot);
        let ticket = batch.join(entry, tokens, self.max_batch)?;
        request.gathered.push(Arc::new(ticket));
        Some(batch.due)
    }
}

impl DataProducer for BurstPrefixCacheProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        let (snapshot, now) = (cycle.snapshot, cycle.now);
        let tickets = cycle.request.gathered.iter();
        let mut tickets = tickets.filter_map(|ticket| ticket.downcast_ref::<Ticket>());
        let Some(ticket) = tickets.find(|ticket| ticket.is_of(&self.name)) else {
            return;
        };
        let assigned = ticket.assigned(now);
        cycle.attributes.fill(self.matched, |matched, _| {
            matched.total = ticket.blocks;
            matched.block_tokens = u32::try_from(self.block_tokens).unwrap_or(u32::MAX);
            matched.input_tokens = ticket.tokens;
            matched.matched.clear();
            let blocks = snapshot
                .slot_ids
                .iter()
                .map(|slot| if Some(*slot) == assigned { ticket.blocks } else { 0 });
            matched.matched.extend(blocks);
            true
        });
    }
}

#[cfg(test)]
mod tests;
