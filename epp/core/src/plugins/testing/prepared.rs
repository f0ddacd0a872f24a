//! A plugin in a cycle whose attributes were written by others.

use std::any::Any;
use std::sync::Arc;

use llmd_epp_api::attribute::{LATENCY_PREDICTION_INFO, PREFIX_CACHE_MATCH_INFO, TOPOLOGY};
use llmd_epp_api::registry::BuildState;
use llmd_epp_api::{
    Attributes, Cycle, DataKey, LatencyPrediction, Plugin, PluginType, Prediction, PrefixMatch, Random,
    Topology,
};

use super::{Pool, build_in, state};
use crate::registry;

type Write = Box<dyn FnOnce(&mut Attributes)>;

/// A plugin and what its cycle holds.
pub(crate) struct Prepared {
    pub(crate) plugin: Plugin,
    state: BuildState,
    written: Vec<Write>,
}

impl Prepared {
    pub(crate) fn new(plugin_type: &PluginType, parameters: &serde_json::Value) -> Self {
        let mut state = state();
        let plugin = build_in(&mut state, plugin_type, parameters).unwrap();
        Self {
            plugin,
            state,
            written: Vec::new(),
        }
    }

    /// `value` as this producer writes it.
    pub(crate) fn with<T: Any + Send + Default>(
        mut self,
        attribute: &'static str,
        producer: &str,
        value: T,
    ) -> Self {
        let producer = producer.into();
        let key = self
            .state
            .layout
            .resolve::<T>(DataKey { attribute, producer })
            .unwrap();
        self.written.push(Box::new(move |attributes| {
            attributes.fill(key, |place, _| {
                *place = value;
                true
            });
        }));
        self
    }

    /// What the default predictor expects of the endpoints.
    pub(crate) fn predicted(self, endpoints: Vec<Option<Prediction>>) -> Self {
        let producer = registry::default_producer(LATENCY_PREDICTION_INFO).unwrap_or_default();
        self.with(LATENCY_PREDICTION_INFO, producer, LatencyPrediction { endpoints })
    }

    /// The labels `host`, `rack`, `zone` and `region` say where endpoints are.
    pub(crate) fn located(self) -> Self {
        let labels = ["host", "rack", "zone", "region"].map(Box::from);
        let topology = Topology {
            labels: Arc::new(labels),
        };
        self.with(TOPOLOGY, "topology-extractor", topology)
    }

    /// `matched` of `total` blocks of 64 tokens, as the default producer found them.
    pub(crate) fn matched(self, matched: Vec<u32>, total: u32) -> Self {
        let found = PrefixMatch {
            matched,
            total,
            block_tokens: 64,
            input_tokens: u64::from(total) * 64,
        };
        self.with(PREFIX_CACHE_MATCH_INFO, "approx-prefix-cache-producer", found)
    }

    pub(crate) fn run<R>(self, pool: &Pool, run: impl FnOnce(&Plugin, &mut Cycle<'_>) -> R) -> R {
        let mut attributes = self.state.layout.attributes();
        for write in self.written {
            write(&mut attributes);
        }
        run(
            &self.plugin,
            &mut Cycle {
                request: &pool.request,
                snapshot: &pool.snapshot,
                now: pool.now,
                attributes: &mut attributes,
            },
        )
    }

    /// What the plugin's filter keeps of the pool.
    pub(crate) fn kept(self, pool: &Pool) -> Vec<u32> {
        self.run(pool, |plugin, cycle| {
            let mut candidates: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
            let filter = plugin.filter.as_ref().unwrap();
            filter.filter(cycle, &mut candidates, &Random::seeded(1));
            candidates
        })
    }

    /// What the plugin's scorer gives to the pool.
    pub(crate) fn scores(self, pool: &Pool) -> Vec<f64> {
        self.run(pool, |plugin, cycle| {
            let candidates: Vec<u32> = (0..pool.snapshot.len() as u32).collect();
            let mut scores = vec![0.0; candidates.len()];
            plugin
                .scorer
                .as_ref()
                .unwrap()
                .score(cycle, &candidates, &mut scores);
            scores
        })
    }
}
