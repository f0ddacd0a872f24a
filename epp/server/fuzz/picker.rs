//! A picker of three endpoints without a network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Once};
use std::time::Duration;

use arc_swap::ArcSwap;
use llmd_epp::body_budget::BodyBudget;
use llmd_epp::extproc::{ExtProc, ReceivedBytes, ShadowMetrics};
use llmd_epp::waiting::{self, WaitingMetrics, WaitingRoom};
use llmd_epp_api::{
    Endpoint, EndpointName, EndpointSpec, MetricsRecord, MetricsScope, Reach, SlotTable, Snapshot,
};
use llmd_epp_core::exchange::Options;
use llmd_epp_core::parsers::Parsers;
use llmd_epp_core::request_metrics::RequestMetrics;
use llmd_epp_core::{BuildEnv, EndpointPickerConfig, Epp, Scheduler};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

/// Smaller than some bodies together.
const BUDGET: usize = 3000;

/// What all inputs of a thread share; idle between them.
pub struct Picker {
    /// Answers.
    pub answering: Arc<ExtProc>,
    /// Compares.
    pub shadowing: Arc<ExtProc>,
    /// For the timers of what waits.
    pub runtime: tokio::runtime::Runtime,
    pool: Arc<ArcSwap<Snapshot>>,
    full: Arc<Snapshot>,
    room: Arc<WaitingRoom>,
}

impl Picker {
    /// Builds it.
    pub fn new() -> Self {
        let registry = Registry::new();
        let env = BuildEnv {
            registry: registry.clone(),
            ..BuildEnv::detached()
        };
        let scheduler = Scheduler::build(&EndpointPickerConfig::upstream_default(), env).expect("builds");
        let full = endpoints();
        scheduler.endpoints_changed(&full);
        let metrics = RequestMetrics::register(&registry, false, "", "").expect("registers");
        let epp = Epp::new(
            Arc::new(scheduler),
            Parsers::default(),
            metrics,
            Options::default(),
        );
        let scope = MetricsScope::new(registry.clone(), false);
        let options = waiting::Options {
            ttl: Duration::from_secs(600),
            max_requests: 2,
            max_bytes: 2000,
        };
        let waiting = WaitingMetrics::register(&scope, "pool").expect("registers");
        let room = WaitingRoom::new(options, waiting, CancellationToken::new());
        let pool = Arc::new(ArcSwap::new(Arc::clone(&full)));
        let (epp, received) = (
            Arc::new(epp),
            ReceivedBytes::register(&registry).expect("registers"),
        );
        let shadow = Arc::new(ShadowMetrics::register(&registry).expect("registers"));
        let shared = |shadow: Option<Arc<ShadowMetrics>>| {
            let seen = Arc::clone(&pool);
            Arc::new(ExtProc {
                epp: Arc::clone(&epp),
                snapshots: Arc::new(move || seen.load_full()),
                answers: Arc::new(|_, _, _| {}),
                emit_endpoint_scores: false,
                warned: Once::new(),
                received: received.clone(),
                stream_metrics: None,
                shadow,
                bodies: Arc::new(BodyBudget::new(BUDGET)),
                waiting: Some(Arc::clone(&room)),
                tracing: false,
            })
        };
        Self {
            answering: shared(None),
            shadowing: shared(Some(shadow)),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime"),
            pool,
            full,
            room,
        }
    }

    /// Endpoints come or go.
    pub fn set_endpoints(&self, present: bool) {
        let snapshot = if present {
            Arc::clone(&self.full)
        } else {
            Arc::default()
        };
        self.pool.store(snapshot);
        self.room.endpoints_changed(present);
    }

    /// Whether any are there.
    pub fn has_endpoints(&self) -> bool {
        !self.pool.load().endpoints.is_empty()
    }

    /// Nothing is booked, held, or open.
    pub fn is_idle(&self) {
        let endpoints = self.full.endpoints.iter();
        let booked: u64 = endpoints
            .map(|one| one.slot().requests() + one.slot().tokens())
            .sum();
        assert_eq!(booked, 0, "load stays booked");
        for shared in [&self.answering, &self.shadowing] {
            assert_eq!(shared.bodies.used(), 0, "bytes stay held");
            assert_eq!(shared.epp.activity().open, 0, "an exchange stays open");
        }
    }
}

fn endpoints() -> Arc<Snapshot> {
    let slots = SlotTable::default();
    let members = (1..=3_u8).map(|index| {
        let name = EndpointName::new("default", format!("pod-{index}"));
        let spec = EndpointSpec {
            pod: "pod".into(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, index)),
            port: 8000,
            rank: 0,
            labels: BTreeMap::new(),
            reach: Reach::default(),
            name: name.clone(),
        };
        (
            Arc::new(Endpoint::new(spec, slots.slot(&name))),
            Arc::new(MetricsRecord::default()),
        )
    });
    Arc::new(Snapshot::new(1, members.collect()))
}
