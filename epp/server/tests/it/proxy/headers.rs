//! Headers of a pick, and of the one after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp::datalayer::{DataLayer, Options};
use llmd_epp_api::{InferenceRequest, Metadata, Rejection, Reservation, ResponseEnd, SlotTable, Snapshot};
use llmd_epp_core::exchange::{HeaderChange, Held, Select, Selection};
use prometheus::Registry;

use super::rig::{scraping, serve, text};
use crate::engine::{Engine, Script};

const PREFILLER: &str = "x-prefiller-host-port";

/// Picks the first candidate; only `engine-0` has a prefiller.
struct PrefilledFirst;

struct Load {
    _reservation: Reservation,
}

impl Held for Load {
    fn on_first_chunk(&mut self, _: Instant) {}

    fn on_complete(&mut self, _: Instant, _: &ResponseEnd) -> Vec<Metadata> {
        Vec::new()
    }

    fn scores(&self) -> Vec<(Arc<str>, f64)> {
        Vec::new()
    }
}

impl Select for PrefilledFirst {
    fn select(
        &self,
        _: Instant,
        _: &InferenceRequest,
        snapshot: &Snapshot,
        candidates: Option<&[u32]>,
    ) -> Result<Selection, Rejection> {
        let first = candidates.map_or(0, |candidates| candidates[0]);
        let endpoint = Arc::clone(&snapshot.endpoints[first as usize]);
        let load = Load {
            _reservation: endpoint.slot().reserve(1),
        };
        let has_prefiller = &*endpoint.name().name == "engine-0";
        let mut selection = Selection::new(vec![endpoint], Box::new(load));
        selection.set_headers.extend(has_prefiller.then(|| HeaderChange {
            name: PREFILLER.into(),
            value: "192.0.2.1:8000".into(),
        }));
        Ok(selection)
    }
}

#[tokio::test]
async fn headers_of_a_pick_do_not_follow_the_request_to_another_engine() {
    let broken = Engine::start(Script::DieBeforeHead).await;
    let good = Engine::start(Script::Json).await;
    let registry = Registry::new();
    let options = Options {
        sources: scraping(),
        refresh_interval: Duration::from_millis(50),
        adaptive: false,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(|_| {}),
        deprecated_metrics: false,
        runtime: tokio::runtime::Handle::current(),
    };
    let layer = DataLayer::start(options, &registry).expect("registers");
    layer.set_endpoints(vec![broken.spec("engine-0"), good.spec("engine-1")]);
    let rig = serve(layer, Arc::new(PrefilledFirst), &registry, None).await;
    let answer = rig
        .chat(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#)
        .await;
    assert_eq!(answer.status(), 200);
    assert!(text(answer).await.contains("\"usage\""));
    assert_eq!(broken.received()[0].header(PREFILLER), Some("192.0.2.1:8000"));
    assert_eq!(good.received()[0].header(PREFILLER), None);
}
