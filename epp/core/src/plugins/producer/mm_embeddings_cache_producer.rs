//! `mm-embeddings-cache-producer`: guesses which media engines have encoded from where requests were sent before.
//!
//! | parameter | default |
//! |---|---|
//! | `cacheSizeInMBPerServer` | 4096, at least 2: an embedding counts 2 MiB, the least recently used go first |
//!
//! Media are told apart by the hashes of `token-producer` and weigh their tokens. They are written for the primary endpoint
//! and for those of the profile `encode` when the first byte of the answer arrives, or at the pick with
//! `--upstream-timing`; an answer with an error writes nothing.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::attribute::ENCODER_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::{DataProducer, EndpointObserver, PreRequest, SchedulingResult};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, EncoderCacheMatch, Metadata, Need, Plugin, PluginType,
    Rejection, RequestChanges, ResponseEnd, ResponseHead, ResponseHook, SlotId, Stability, Timing,
};
use llmd_kv::{Matches, PrefixIndex, hash::root};
use serde::Deserialize;

use crate::plugins::prompt::Prompts;

/// Type name in configurations.
pub const TYPE: &str = "mm-embeddings-cache-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[ENCODER_CACHE_MATCH_INFO],
    build: |context| {
        let producer = Arc::new(MmEmbeddingsCacheProducer::new(context)?);
        Ok(Plugin {
            producer: Some(producer.clone()),
            pre_request: Some(producer.clone()),
            observer: Some(producer),
            ..Plugin::default()
        })
    },
};

const MIB_PER_EMBEDDING: usize = 2;
const ENCODE_PROFILE: &str = "encode";
const MEDIA: &str = "EncoderCacheKeys";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    #[serde(rename = "cacheSizeInMBPerServer")]
    cache_size_mib: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { cache_size_mib: 4096 }
    }
}

/// The media of one request.
#[derive(Debug, Default)]
struct Media {
    /// Key and tokens of each.
    known: Vec<(u64, u64)>,
    /// Tokens that endpoints have encoded before, by snapshot index.
    matched: Vec<u64>,
    matches: Matches,
}

#[derive(Debug)]
struct MmEmbeddingsCacheProducer {
    /// Media per endpoint.
    capacity: usize,
    cached: AttributeKey<EncoderCacheMatch>,
    media: AttributeKey<Media>,
    prompts: Prompts,
    timing: Timing,
    index: Arc<PrefixIndex>,
}

impl MmEmbeddingsCacheProducer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters { cache_size_mib } = context.parameters()?;
        let capacity = cache_size_mib / MIB_PER_EMBEDDING;
        if capacity == 0 {
            return Err(BuildError::value("cacheSizeInMBPerServer", "must be at least 2"));
        }
        Ok(Self {
            capacity,
            cached: context.produces(ENCODER_CACHE_MATCH_INFO)?,
            media: context.produces(MEDIA)?,
            prompts: Prompts::read_by(context, Need::Required)?,
            timing: context.state.timing,
            index: Arc::default(),
        })
    }
}

impl DataProducer for MmEmbeddingsCacheProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        let (request, snapshot) = (cycle.request, cycle.snapshot);
        cycle.attributes.fill(self.media, |media, others| {
            let Media {
                known,
                matched,
                matches,
            } = media;
            known.clear();
            let tokenized = self.prompts.tokenized(others).into_iter();
            let features = tokenized.flat_map(|made| made.prompts.iter().flat_map(|prompt| &prompt.features));
            known
                .extend(features.map(|feature| (root(&request.target_model, &feature.hash), feature.length)));
            matched.clear();
            matched.resize(snapshot.len(), 0);
            for (key, tokens) in known.iter() {
                matches.clear();
                self.index.lookup(&[*key], matches);
                if matches.is_empty() {
                    continue;
                }
                for (matched, slot) in matched.iter_mut().zip(&snapshot.slot_ids) {
                    *matched += u64::from(matches.blocks(*slot)) * tokens;
                }
            }
            !known.is_empty()
        });
        cycle.attributes.fill(self.cached, |cached, others| {
            let Some(media) = others.get(self.media) else {
                return false;
            };
            cached.total = media.known.iter().map(|(_, tokens)| tokens).sum();
            cached.matched.clone_from(&media.matched);
            true
        });
    }
}

impl PreRequest for MmEmbeddingsCacheProducer {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let Some(media) = cycle.attributes.get(self.media) else {
            return Ok(());
        };
        let encoders = result
            .runs
            .iter()
            .filter(|run| result.profile_name(run) == ENCODE_PROFILE);
        let mut targets: Vec<u32> = result
            .target()
            .into_iter()
            .chain(encoders.flat_map(|run| run.picked.iter().copied()))
            .collect();
        targets.sort_unstable();
        targets.dedup();
        let slots = targets
            .iter()
            .map(|index| cycle.snapshot.slot_ids[*index as usize]);
        let mut pending = Pending {
            index: Arc::clone(&self.index),
            slots: slots.collect(),
            keys: media.known.iter().map(|(key, _)| *key).collect(),
            capacity: self.capacity,
        };
        match self.timing {
            Timing::Upstream => pending.write(),
            Timing::Live => changes.hooks.push(Box::new(pending)),
        }
        Ok(())
    }
}

impl EndpointObserver for MmEmbeddingsCacheProducer {
    fn retain(&self, live: &[SlotId]) {
        self.index.retain(live);
    }
}

/// Writes media once an engine shows that it has encoded them.
#[derive(Debug)]
struct Pending {
    index: Arc<PrefixIndex>,
    slots: Vec<SlotId>,
    keys: Vec<u64>,
    capacity: usize,
}

impl Pending {
    fn write(&mut self) {
        for slot in self.slots.drain(..) {
            self.index.insert(slot, &self.keys, self.capacity);
        }
    }
}

impl ResponseHook for Pending {
    fn on_headers(&mut self, head: &ResponseHead<'_>, _: &mut Vec<(Arc<str>, String)>) {
        if head.status >= 400 {
            self.slots.clear();
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

#[cfg(test)]
mod tests;
