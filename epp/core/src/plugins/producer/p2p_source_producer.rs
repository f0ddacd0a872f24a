//! `p2p-source-producer`: names a peer from which the computing endpoint may pull the cached prefix.
//!
//! | parameter | default |
//! |---|---|
//! | `prefixMatchInfoProducerName` | the default producer |
//! | `minCachedTokenDelta` | 1, the least: tokens that the peer holds beyond the computing endpoint |
//! | `prefillProfileName` | `prefill`; its endpoint computes where it ran, else that of the primary profile |
//!
//! Among the candidates within one block of the longest cached prefix one is drawn with weight 1 / (1 + waiting requests);
//! the same request id draws the same one. The header `x-kv-cache-source-host-port` tells the routing sidecar.

use std::sync::Arc;

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::{DataProducer, PreRequest, SchedulingResult};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Need, Plugin, PluginType, PrefixMatch, Rejection,
    RequestChanges, Snapshot, Stability,
};
use llmd_openai::header;
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "p2p-source-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let producer = Arc::new(P2pSourceProducer::new(context)?);
        Ok(Plugin {
            producer: Some(producer.clone()),
            pre_request: Some(producer),
            ..Plugin::default()
        })
    },
};

/// Of this type alone: what is drawn before the profiles run waits here for their result.
const PULL_SOURCE: &str = "PullSource";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    prefix_match_info_producer_name: String,
    min_cached_token_delta: u64,
    prefill_profile_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            min_cached_token_delta: 1,
            prefill_profile_name: String::new(),
        }
    }
}

/// The endpoint to pull from.
#[derive(Debug, Default)]
struct PullSource {
    /// By snapshot index.
    index: u32,
    /// Tokens it holds.
    cached: u64,
}

struct P2pSourceProducer {
    min_delta: u64,
    prefill: String,
    prefix: AttributeKey<PrefixMatch>,
    source: AttributeKey<PullSource>,
}

impl P2pSourceProducer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters {
            prefix_match_info_producer_name,
            min_cached_token_delta,
            prefill_profile_name,
        } = context.parameters()?;
        if min_cached_token_delta == 0 {
            return Err(BuildError::value("minCachedTokenDelta", "must be at least 1"));
        }
        let prefill = match prefill_profile_name.as_str() {
            "" => "prefill".to_owned(),
            _ => prefill_profile_name,
        };
        let producer = Some(prefix_match_info_producer_name.as_str());
        Ok(Self {
            min_delta: min_cached_token_delta,
            prefill,
            prefix: context.consumes(PREFIX_CACHE_MATCH_INFO, producer, Need::Required)?,
            source: context.produces(PULL_SOURCE)?,
        })
    }
}

/// Tokens that endpoint `index` holds of the request.
fn cached(matched: &PrefixMatch, index: u32) -> u64 {
    u64::from(matched.matched_blocks(index)) * u64::from(matched.block_tokens)
}

/// Draws with `fraction` (0..1) among the candidates that hold nearly as much as the best one.
fn draw(matched: &PrefixMatch, snapshot: &Snapshot, candidates: &[u32], fraction: f64) -> Option<PullSource> {
    let most = candidates.iter().map(|index| cached(matched, *index)).max()?;
    let least = most.saturating_sub(u64::from(matched.block_tokens)).max(1);
    let near = || {
        let weight = |index: &u32| 1.0 / (1.0 + f64::from(snapshot.waiting[*index as usize]));
        let near = candidates
            .iter()
            .filter(|index| cached(matched, **index) >= least);
        near.map(move |index| (*index, weight(index)))
    };
    let mut left = fraction * near().map(|(_, weight)| weight).sum::<f64>();
    let mut drawn = None;
    for (index, weight) in near() {
        drawn = Some(index);
        if left < weight {
            break;
        }
        left -= weight;
    }
    drawn.map(|index| PullSource {
        index,
        cached: cached(matched, index),
    })
}

/// FNV-1a of 32 bits as a share of its range.
fn spread(request_id: &str) -> f64 {
    let hash = request_id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    f64::from(hash) / 4_294_967_296.0
}

impl DataProducer for P2pSourceProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, candidates: &[u32]) {
        let snapshot = cycle.snapshot;
        let fraction = spread(&cycle.request.request_id);
        cycle.attributes.fill(self.source, |source, others| {
            let matched = others.get(self.prefix);
            let drawn = matched.and_then(|matched| draw(matched, snapshot, candidates, fraction));
            drawn.is_some_and(|drawn| {
                *source = drawn;
                true
            })
        });
    }
}

impl PreRequest for P2pSourceProducer {
    fn pre_request(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        let (Some(source), Some(matched)) = (
            cycle.attributes.get(self.source),
            cycle.attributes.get(self.prefix),
        ) else {
            return Ok(());
        };
        let mut profiles = result.first_endpoints();
        let prefilling = profiles.find(|(profile, _)| *profile == self.prefill);
        let computing = prefilling.map(|(_, index)| index).or_else(|| result.target());
        let lead = computing
            .filter(|computing| *computing != source.index)
            .map(|computing| source.cached.saturating_sub(cached(matched, computing)));
        if lead.is_some_and(|lead| lead >= self.min_delta) {
            let peer = cycle.snapshot.endpoints[source.index as usize].target();
            changes
                .set_headers
                .push((header::KV_CACHE_SOURCE.into(), peer.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, build_error, result_of, with_prefix};

    /// The header's value after `picked` was chosen in these profiles; the first one is primary.
    fn peer(parameters: Value, pool: &Pool, matched: &[u32], picked: &[(&str, &[u32])]) -> Option<String> {
        let candidates: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
        with_prefix(&PLUGIN, parameters, matched, 8, |plugin, cycle| {
            plugin.producer.as_ref().unwrap().produce(cycle, &candidates);
            let mut changes = RequestChanges::default();
            let plugin = plugin.pre_request.as_ref().unwrap();
            result_of(picked, 0, |result| {
                plugin.pre_request(cycle, result, &mut changes).unwrap();
            });
            let mut headers = changes.set_headers.into_iter();
            headers
                .find(|(name, _)| &**name == "x-kv-cache-source-host-port")
                .map(|(_, value)| value)
        })(pool)
    }

    #[test]
    fn the_endpoint_that_computes_is_told_who_holds_more() {
        let pool = Pool::of(3);
        let default: [(&str, &[u32]); 1] = [("default", &[0])];
        let told = peer(Value::Null, &pool, &[1, 0, 6], &default);
        assert_eq!(told.as_deref(), Some("10.0.0.2:8000"));
        assert_eq!(peer(Value::Null, &pool, &[6, 0, 0], &default), None, "itself");
        assert_eq!(peer(Value::Null, &pool, &[0, 0, 0], &default), None, "nobody");
        let delta = |tokens: u64| json!({"minCachedTokenDelta": tokens});
        assert!(peer(delta(320), &pool, &[1, 0, 6], &default).is_some());
        assert_eq!(peer(delta(321), &pool, &[1, 0, 6], &default), None);
    }

    #[test]
    fn prefill_computes_where_it_ran() {
        let pool = Pool::of(3);
        let both: [(&str, &[u32]); 2] = [("decode", &[0]), ("prefill", &[2])];
        assert_eq!(peer(Value::Null, &pool, &[0, 0, 6], &both), None);
        let renamed = json!({"prefillProfileName": "p"});
        assert!(peer(renamed, &pool, &[0, 0, 6], &both).is_some());
    }

    #[test]
    fn peers_within_a_block_share_by_their_queues() {
        let (mut pool, mut drawn) = (Pool::of(4).waiting(2, 3), [0_u32; 4]);
        for number in 0..2000 {
            pool.request.request_id = format!("request-{number}").into();
            let told = peer(Value::Null, &pool, &[0, 5, 6, 4], &[("default", &[0])]).unwrap();
            let index = pool
                .snapshot
                .endpoints
                .iter()
                .position(|endpoint| **endpoint.target() == *told);
            drawn[index.unwrap()] += 1;
            let again = peer(Value::Null, &pool, &[0, 5, 6, 4], &[("default", &[0])]);
            assert_eq!(again.unwrap(), told, "the id decides");
        }
        assert_eq!((drawn[0], drawn[3]), (0, 0), "two blocks behind");
        // Weights 1 and 1/4.
        assert!((300..500).contains(&drawn[2]), "{drawn:?}");
    }

    #[test]
    fn fnv_is_that_of_its_specification() {
        assert_eq!(spread(""), f64::from(0x811c_9dc5_u32) / 4_294_967_296.0);
        assert_eq!(spread("a"), f64::from(0xe40c_292c_u32) / 4_294_967_296.0);
        assert_eq!(spread("foobar"), f64::from(0xbf9c_f968_u32) / 4_294_967_296.0);
    }

    #[test]
    fn a_delta_of_nothing_is_refused() {
        let error = build_error(&PLUGIN, json!({"minCachedTokenDelta": 0}));
        assert!(error.contains("minCachedTokenDelta"), "{error}");
    }
}
