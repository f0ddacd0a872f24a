//! Small pools and cycles for the plugins' unit tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp_api::attribute::PREFIX_CACHE_MATCH_INFO;
use llmd_epp_api::plugin::{Filter, ProfileRun, SchedulingResult, Scorer};
use llmd_epp_api::registry::BuildState;
use llmd_epp_api::{
    Attributes, BuildContext, Cycle, DataKey, Endpoint, EndpointName, EndpointSpec, Headers,
    InferenceRequest, MetricsRecord, MetricsScope, Objective, Plugin, PluginType, PrefixMatch, Random,
    RequestChanges, Reservation, Slot, Snapshot, TypedName,
};
use llmd_openai::{Prompt, PromptInput, RequestFacts};

use crate::registry;

mod prepared;

pub(crate) use prepared::Prepared;

/// A request with one text prompt.
pub(crate) fn request(text: &str) -> InferenceRequest {
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
        size_bytes: text.len(),
        facts: RequestFacts {
            prompts: vec![Prompt {
                input: PromptInput::Text(text.as_bytes().to_vec()),
            }],
            ..RequestFacts::default()
        },
        gathered: Vec::new(),
    }
}

/// A pool under construction; `snapshot` follows every change.
pub(crate) struct Pool {
    members: Vec<(EndpointSpec, Slot, MetricsRecord)>,
    held: Vec<Reservation>,
    pub(crate) now: Instant,
    pub(crate) request: InferenceRequest,
    pub(crate) snapshot: Snapshot,
}

impl Pool {
    /// `size` idle endpoints `e0`, `e1`, … scraped just now.
    pub(crate) fn of(size: usize) -> Self {
        let now = Instant::now();
        let member = |index: usize| {
            let spec = EndpointSpec {
                name: EndpointName::new("default", format!("e{index}")),
                pod: format!("e{index}").into(),
                address: [10, 0, (index / 256) as u8, (index % 256) as u8].into(),
                port: 8000,
                rank: 0,
                reach: llmd_epp_api::Reach::default(),
                labels: BTreeMap::default(),
            };
            let record = MetricsRecord {
                update_time: Some(now),
                ..MetricsRecord::default()
            };
            (spec, Slot::detached(index as u32), record)
        };
        Self {
            members: (0..size).map(member).collect(),
            held: Vec::new(),
            now,
            request: request("hello"),
            snapshot: Snapshot::default(),
        }
        .published()
    }

    fn published(mut self) -> Self {
        let members = self.members.iter().map(|(spec, slot, record)| {
            let endpoint = Endpoint::new(spec.clone(), slot.clone());
            (Arc::new(endpoint), Arc::new(record.clone()))
        });
        self.snapshot = Snapshot::new(self.snapshot.version + 1, members.collect());
        self
    }

    pub(crate) fn record(mut self, index: usize, change: impl FnOnce(&mut MetricsRecord)) -> Self {
        change(&mut self.members[index].2);
        self.published()
    }

    pub(crate) fn waiting(self, index: usize, waiting: u32) -> Self {
        self.record(index, |record| record.waiting_queue_size = waiting)
    }

    pub(crate) fn running(self, index: usize, running: u32) -> Self {
        self.record(index, |record| record.running_requests_size = running)
    }

    pub(crate) fn kv_usage(self, index: usize, usage: f64) -> Self {
        self.record(index, |record| record.kv_cache_usage = usage)
    }

    pub(crate) fn scraped(self, index: usize, ago: Duration) -> Self {
        let at = self.now.checked_sub(ago);
        self.record(index, |record| record.update_time = at)
    }

    pub(crate) fn label(mut self, index: usize, key: &str, value: &str) -> Self {
        self.members[index].0.labels.insert(key.into(), value.into());
        self.published()
    }

    /// Adds one request of `tokens` tokens in flight.
    pub(crate) fn in_flight(mut self, index: usize, tokens: u64) -> Self {
        self.held.push(self.members[index].1.reserve(tokens));
        self
    }

    pub(crate) fn cycle<R>(&self, run: impl FnOnce(&mut Cycle<'_>) -> R) -> R {
        run(&mut Cycle {
            request: &self.request,
            snapshot: &self.snapshot,
            now: self.now,
            attributes: &mut Attributes::default(),
        })
    }

    pub(crate) fn filtered(&self, filter: &dyn Filter) -> Vec<u32> {
        let mut candidates: Vec<u32> = (0..self.snapshot.len() as u32).collect();
        self.cycle(|cycle| filter.filter(cycle, &mut candidates, &Random::seeded(1)));
        candidates
    }

    pub(crate) fn scored(&self, scorer: &dyn Scorer) -> Vec<f64> {
        let candidates: Vec<u32> = (0..self.snapshot.len() as u32).collect();
        let mut scores = vec![0.0; candidates.len()];
        self.cycle(|cycle| scorer.score(cycle, &candidates, &mut scores));
        scores
    }
}

/// Lets `read` see the result of these profiles (name, picked).
pub(crate) fn result_of<R>(
    profiles: &[(&str, &[u32])],
    primary: usize,
    read: impl FnOnce(SchedulingResult<'_>) -> R,
) -> R {
    let names: Vec<Arc<str>> = profiles.iter().map(|(name, _)| (*name).into()).collect();
    let runs: Vec<ProfileRun> = profiles
        .iter()
        .enumerate()
        .map(|(profile, (_, picked))| ProfileRun {
            profile,
            picked: picked.to_vec(),
            ..ProfileRun::default()
        })
        .collect();
    read(SchedulingResult {
        profiles: &names,
        runs: &runs,
        primary,
    })
}

/// What a plugin changes about a request after these profiles (name, picked) ran.
pub(crate) fn changes(
    plugin: &Plugin,
    pool: &Pool,
    profiles: &[(&str, &[u32])],
    primary: usize,
) -> RequestChanges {
    let mut changes = RequestChanges::default();
    let plugin = plugin.pre_request.as_ref().unwrap();
    result_of(profiles, primary, |result| {
        pool.cycle(|cycle| plugin.pre_request(cycle, result, &mut changes))
    })
    .unwrap();
    changes
}

/// What a producer writes for the request of `pool` under (attribute, producer).
pub(crate) fn produced<T: std::any::Any + Send + Default, R>(
    plugin_type: &PluginType,
    parameters: serde_json::Value,
    (attribute, producer): (&'static str, &str),
    pool: &Pool,
    read: impl FnOnce(Option<&T>) -> R,
) -> R {
    let mut state = state();
    let plugin = build_in(&mut state, plugin_type, &parameters).unwrap();
    let producer = producer.into();
    let key = state
        .layout
        .resolve::<T>(DataKey { attribute, producer })
        .unwrap();
    let mut attributes = state.layout.attributes();
    let mut cycle = Cycle {
        request: &pool.request,
        snapshot: &pool.snapshot,
        now: pool.now,
        attributes: &mut attributes,
    };
    let candidates: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
    plugin.producer.unwrap().produce(&mut cycle, &candidates);
    read(attributes.get(key))
}

pub(crate) fn state() -> BuildState {
    BuildState::new(MetricsScope::new(prometheus::Registry::new(), true))
}

pub(crate) fn build_in(
    state: &mut BuildState,
    plugin_type: &PluginType,
    parameters: &serde_json::Value,
) -> Result<Plugin, String> {
    let name = TypedName {
        plugin_type: plugin_type.name,
        name: plugin_type.name.into(),
    };
    (plugin_type.build)(&mut BuildContext {
        name: &name,
        instance: 0,
        parameters,
        state,
        default_producer: &registry::default_producer,
    })
    .map_err(|error| error.to_string())
}

/// An instance with these parameters.
pub(crate) fn build(plugin_type: &PluginType, parameters: serde_json::Value) -> Plugin {
    build_in(&mut state(), plugin_type, &parameters).unwrap()
}

/// Why these parameters are refused.
pub(crate) fn build_error(plugin_type: &PluginType, parameters: serde_json::Value) -> String {
    build_in(&mut state(), plugin_type, &parameters).unwrap_err()
}

/// Runs a plugin in a cycle in which the default producer found `matched` of `total` blocks of 64
/// tokens.
pub(crate) fn with_prefix<R>(
    plugin_type: &PluginType,
    parameters: serde_json::Value,
    matched: &[u32],
    total: u32,
    run: impl FnOnce(&Plugin, &mut Cycle<'_>) -> R,
) -> impl FnOnce(&Pool) -> R {
    let mut state = state();
    let plugin = build_in(&mut state, plugin_type, &parameters).unwrap();
    let key = state
        .layout
        .resolve::<PrefixMatch>(DataKey {
            attribute: PREFIX_CACHE_MATCH_INFO,
            producer: "approx-prefix-cache-producer".into(),
        })
        .unwrap();
    let mut attributes = state.layout.attributes();
    let matched = matched.to_vec();
    move |pool| {
        attributes.fill(key, |value, _| {
            *value = PrefixMatch {
                matched,
                total,
                block_tokens: 64,
                input_tokens: u64::from(total) * 64,
            };
            true
        });
        run(
            &plugin,
            &mut Cycle {
                request: &pool.request,
                snapshot: &pool.snapshot,
                now: pool.now,
                attributes: &mut attributes,
            },
        )
    }
}
