//! `inflight-load-producer`: counts requests and tokens that are in flight through this process.
//!
//! | parameter | default |
//! |---|---|
//! | `addEstimatedOutputTokens` | false |
//! | `outputRatio` | 1.5 output tokens per input token |
//! | `maxEstimatedOutputTokens` | none |
//! | `prefixMatchInfoProducerName` | the default producer, if there is one |
//! | `syncCrossReplicaState` | true; has no effect without a cross-replica syncer |
//!
//! At pick time the first endpoint of every profile gets 1 request and T tokens: the uncached input
//! tokens (those of `token-producer`, media included), the whole input without match information, plus the output estimate when asked for
//! (`round(input · outputRatio)`, capped by the client's own cap and by the parameter).
//! Without output estimate all tokens are given back at the first response chunk, and the `prefill`
//! entry completely; the rest at the end. With output estimate only the `prefill` entry ends early.
//! Dropping the decision gives back what is left, so there is nothing for a janitor to reap.
//! An instance always exists, because select-and-reserve and the pickers' tie-break read the load.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use llmd_epp_api::attribute::{IN_FLIGHT_LOAD, PREFIX_CACHE_MATCH_INFO, UNCACHED_REQUEST_TOKENS};
use llmd_epp_api::plugin::{DataProducer, EndpointObserver, Reserve, SchedulingResult, StateDumper};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Endpoint, InFlightLoad, InferenceRequest, Metadata,
    MetricsScope, Need, Plugin, PluginType, PrefixMatch, Reservation, ResponseEnd, ResponseHook, SlotId,
    Stability, UncachedTokens,
};
use prometheus::{IntGauge, IntGaugeVec};
use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::plugins::prompt::Prompts;

use crate::label_cap::LabelCap;
use crate::metrics::Family;

/// Type name in configurations.
pub const TYPE: &str = "inflight-load-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[IN_FLIGHT_LOAD, UNCACHED_REQUEST_TOKENS],
    build: |context| {
        let producer = Arc::new(InFlightLoadProducer::new(context)?);
        Ok(Plugin {
            producer: Some(producer.clone()),
            reserve: Some(producer.clone()),
            state: Some(producer.clone()),
            observer: Some(producer),
            ..Plugin::default()
        })
    },
};

const PREFILL_PROFILE: &str = "prefill";
const LABELS: [&str; 5] = [
    "endpoint_name",
    "namespace",
    "producer_name",
    "fairness_id",
    "priority",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    add_estimated_output_tokens: bool,
    output_ratio: f64,
    max_estimated_output_tokens: Option<u64>,
    prefix_match_info_producer_name: String,
    /// Upstream's default files may set it; both values mean the same without a syncer.
    #[serde(rename = "syncCrossReplicaState")]
    _sync_cross_replica_state: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            add_estimated_output_tokens: false,
            output_ratio: 1.5,
            max_estimated_output_tokens: None,
            prefix_match_info_producer_name: String::new(),
            _sync_cross_replica_state: true,
        }
    }
}

/// How output tokens are estimated.
#[derive(Clone, Copy, Debug)]
struct OutputEstimate {
    ratio: f64,
    max: Option<u64>,
}

struct InFlightLoadProducer {
    output: Option<OutputEstimate>,
    prefix: AttributeKey<PrefixMatch>,
    prompts: Prompts,
    uncached: AttributeKey<UncachedTokens>,
    gauges: Gauges,
}

impl InFlightLoadProducer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let parameters: Parameters = context.parameters()?;
        if !(parameters.output_ratio >= 0.0 && parameters.output_ratio.is_finite()) {
            return Err(BuildError::value("outputRatio", "must not be negative"));
        }
        context.produces::<InFlightLoad>(IN_FLIGHT_LOAD)?;
        let families = context.metrics(GaugeFamilies::register)?;
        Ok(Self {
            output: parameters.add_estimated_output_tokens.then_some(OutputEstimate {
                ratio: parameters.output_ratio,
                max: parameters.max_estimated_output_tokens,
            }),
            prefix: context.consumes(
                PREFIX_CACHE_MATCH_INFO,
                Some(&parameters.prefix_match_info_producer_name),
                Need::Optional,
            )?,
            prompts: Prompts::read_by(context, Need::Required)?,
            uncached: context.produces(UNCACHED_REQUEST_TOKENS)?,
            gauges: Gauges {
                producer: context.name.name.clone(),
                families,
                fairness: LabelCap::default(),
                series: Mutex::default(),
            },
        })
    }

    fn output_tokens(&self, request: &InferenceRequest, input: u64) -> u64 {
        let Some(OutputEstimate { ratio, max }) = self.output else {
            return 0;
        };
        let estimate = (input as f64 * ratio).round() as u64;
        let caps = [request.facts.max_output_tokens, max];
        caps.into_iter().flatten().fold(estimate, u64::min)
    }
}

impl DataProducer for InFlightLoadProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, _candidates: &[u32]) {
        let (request, snapshot) = (cycle.request, cycle.snapshot);
        cycle.attributes.fill(self.uncached, |tokens, others| {
            let input = self.prompts.tokens(request, others);
            tokens.output = self.output_tokens(request, input);
            tokens.input.clear();
            match others.get(self.prefix) {
                Some(matched) => {
                    let all = 0..snapshot.len() as u32;
                    tokens
                        .input
                        .extend(all.map(|index| matched.uncached_tokens(index)));
                }
                None => tokens.input.resize(snapshot.len(), input),
            }
            true
        });
    }
}

impl Reserve for InFlightLoadProducer {
    fn reserve(
        &self,
        cycle: &Cycle<'_>,
        result: SchedulingResult<'_>,
        hooks: &mut Vec<Box<dyn ResponseHook>>,
    ) {
        let load = cycle.attributes.get(self.uncached);
        for (profile, index) in result.first_endpoints() {
            let uncached = load.and_then(|load| load.input.get(index as usize));
            let output = load.map_or(0, |load| load.output);
            let booked = uncached.copied().unwrap_or(0).saturating_add(output);
            let endpoint = &cycle.snapshot.endpoints[index as usize];
            let at_first_chunk = if profile == PREFILL_PROFILE {
                Release::Everything
            } else if self.output.is_some() {
                Release::Nothing
            } else {
                Release::Tokens
            };
            let series = self.gauges.series(endpoint, cycle.request);
            series.requests.inc();
            let tokens = i64::try_from(booked).unwrap_or(i64::MAX);
            series.tokens.add(tokens);
            hooks.push(Box::new(InFlight {
                held: Some(endpoint.slot().reserve(booked)),
                tokens,
                series,
                at_first_chunk,
            }));
        }
    }
}

impl EndpointObserver for InFlightLoadProducer {
    fn retain(&self, live: &[SlotId]) {
        self.gauges.retain(live);
    }
}

/// Endpoints that the debug page lists, the busiest ones.
const SHOWN_ENDPOINTS: usize = 100;

impl StateDumper for InFlightLoadProducer {
    fn dump(&self) -> serde_json::Value {
        let mut endpoints: Vec<(u64, u64, String)> = self.gauges.endpoints(|endpoint| {
            let slot = endpoint.slot();
            (slot.requests(), slot.tokens(), endpoint.name().to_string())
        });
        let total = endpoints.len();
        endpoints.sort_by(|one, other| (other.0, other.1, &one.2).cmp(&(one.0, one.1, &other.2)));
        endpoints.truncate(SHOWN_ENDPOINTS);
        let shown = endpoints.iter().map(|(requests, tokens, endpoint)| {
            serde_json::json!({"endpoint": endpoint, "requests": requests, "tokens": tokens})
        });
        serde_json::json!({
            "endpoints": shown.collect::<Vec<_>>(),
            "totalEndpoints": total,
            "maxEndpoints": SHOWN_ENDPOINTS,
            "truncated": total > SHOWN_ENDPOINTS,
        })
    }
}

/// What the first response chunk gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Nothing,
    Tokens,
    Everything,
}

/// One profile's load on one endpoint.
struct InFlight {
    held: Option<Reservation>,
    tokens: i64,
    series: Series,
    at_first_chunk: Release,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl InFlight {
    fn release_tokens(&mut self) {
        if let Some(held) = &mut self.held {
            held.release_tokens();
        }
        self.series.tokens.sub(std::mem::take(&mut self.tokens));
    }

    fn release(&mut self) {
        self.release_tokens();
        if self.held.take().is_some() {
            self.series.requests.dec();
        }
    }
}

impl ResponseHook for InFlight {
    fn on_first_chunk(&mut self, _now: Instant) {
        match self.at_first_chunk {
            Release::Nothing => {}
            Release::Tokens => self.release_tokens(),
            Release::Everything => self.release(),
        }
    }

    fn on_complete(&mut self, _: Instant, _: &ResponseEnd, _: &mut Vec<Metadata>) {
        self.release();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release();
    }
}

/// Gauge families of all instances.
struct GaugeFamilies {
    requests: IntGaugeVec,
    tokens: IntGaugeVec,
}

impl GaugeFamilies {
    fn register(scope: &MetricsScope) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: Family::new(
                "inflight_requests",
                "Requests in flight to each endpoint.",
                &LABELS,
            )
            .gauge(scope)?,
            tokens: Family::new("inflight_tokens", "Tokens in flight to each endpoint.", &LABELS)
                .gauge(scope)?,
        })
    }
}

#[derive(Clone)]
struct Series {
    requests: IntGauge,
    tokens: IntGauge,
}

/// Series of one flow, by fairness id and priority.
type ByFlow = FxHashMap<(Arc<str>, i32), Series>;

/// Gauges of one instance; the handles are kept because label look-ups are dear.
struct Gauges {
    producer: Arc<str>,
    families: Arc<GaugeFamilies>,
    fairness: LabelCap,
    series: Mutex<FxHashMap<SlotId, (Arc<Endpoint>, ByFlow)>>,
}

impl Gauges {
    fn series(&self, endpoint: &Arc<Endpoint>, request: &InferenceRequest) -> Series {
        let objective = &request.objective;
        let admitted = self.fairness.admit(&objective.fairness_id);
        let fairness = if admitted == &*objective.fairness_id {
            Arc::clone(&objective.fairness_id)
        } else {
            admitted.into()
        };
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, flows) = series
            .entry(endpoint.slot().id())
            .or_insert_with(|| (Arc::clone(endpoint), ByFlow::default()));
        let key = (fairness, objective.priority);
        if let Some(known) = flows.get(&key) {
            return known.clone();
        }
        let made = self.with_labels(endpoint, &key, |labels| Series {
            requests: self.families.requests.with_label_values(labels),
            tokens: self.families.tokens.with_label_values(labels),
        });
        flows.insert(key, made.clone());
        made
    }

    fn with_labels<R>(
        &self,
        endpoint: &Endpoint,
        (fairness, priority): &(Arc<str>, i32),
        run: impl FnOnce(&[&str]) -> R,
    ) -> R {
        let name = endpoint.name();
        let priority = priority.to_string();
        run(&[&name.name, &name.namespace, &self.producer, fairness, &priority])
    }

    /// `read` of each endpoint that has had a request.
    fn endpoints<R>(&self, read: impl Fn(&Endpoint) -> R) -> Vec<R> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.values().map(|(endpoint, _)| read(endpoint)).collect()
    }

    fn retain(&self, live: &[SlotId]) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|slot, (endpoint, flows)| {
            let is_live = live.binary_search(slot).is_ok();
            if !is_live {
                for key in flows.keys() {
                    self.with_labels(endpoint, key, |labels| {
                        // A series that is not there any more is what is wanted.
                        let _ = self.families.requests.remove_label_values(labels);
                        let _ = self.families.tokens.remove_label_values(labels);
                    });
                }
            }
            is_live
        });
    }
}

#[cfg(test)]
mod tests;
