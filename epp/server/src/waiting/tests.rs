use llmd_epp_api::{Headers, MetricsScope, Objective};
use prometheus::{Encoder, Registry, TextEncoder};

use super::*;

const TTL: Duration = Duration::from_secs(60);

fn request(bytes: usize) -> InferenceRequest {
    InferenceRequest {
        request_id: "r".into(),
        incoming_model: "m".into(),
        target_model: "m".into(),
        objective: Objective {
            priority: 0,
            fairness_id: "f".into(),
        },
        headers: Headers::default(),
        size_bytes: bytes,
        facts: llmd_openai::RequestFacts::default(),
        gathered: Vec::new(),
        tokens: None,
    }
}

struct Rig {
    room: Arc<WaitingRoom>,
    registry: Registry,
    stop: CancellationToken,
}

fn rig(max_requests: usize, max_bytes: usize) -> Rig {
    let registry = Registry::new();
    let metrics = WaitingMetrics::register(&MetricsScope::new(registry.clone(), true), "p").unwrap();
    let stop = CancellationToken::new();
    let options = Options {
        ttl: TTL,
        max_requests,
        max_bytes,
    };
    Rig {
        room: WaitingRoom::new(options, metrics, stop.clone()),
        registry,
        stop,
    }
}

impl Rig {
    fn place(&self, bytes: usize) -> Place {
        self.room.place(&request(bytes)).unwrap().expect("has to wait")
    }

    fn has(&self, line: &str) {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }

    fn waiting(&self, requests: usize, bytes: usize) {
        let labels =
            r#"fairness_id="f",inference_pool="p",model_name="m",priority="0",target_model_name="m""#;
        for prefix in ["llm_d_epp", "inference_extension"] {
            self.has(&format!(
                "{prefix}_flow_control_queue_size{{{labels}}} {requests}"
            ));
            self.has(&format!("{prefix}_flow_control_queue_bytes{{{labels}}} {bytes}"));
        }
    }

    fn ended(&self, outcome: &str, requests: usize) {
        self.has(&format!(
            r#"llm_d_epp_flow_control_requests_total{{inference_pool="p",outcome="{outcome}",priority="0"}} {requests}"#
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn they_go_on_in_the_order_in_which_they_came_one_after_the_other() {
    const REQUESTS: usize = 200;
    let rig = rig(REQUESTS, usize::MAX);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..REQUESTS {
        let mut place = rig.place(1);
        let order = Arc::clone(&order);
        tasks.spawn(async move {
            place.turn().await.unwrap();
            order.lock().unwrap().push(number);
        });
    }
    rig.waiting(REQUESTS, REQUESTS);
    assert!(order.lock().unwrap().is_empty());
    rig.room.endpoints_changed(true);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let order = order.lock().unwrap();
    assert!(order.is_sorted() && order.len() == REQUESTS, "{order:?}");
    assert!(rig.room.is_open());
    rig.waiting(0, 0);
    rig.ended("Dispatched", REQUESTS);
}

#[tokio::test]
async fn who_comes_later_waits_behind_until_nobody_is_before() {
    let rig = rig(10, 100);
    let mut first = rig.place(1);
    rig.room.endpoints_changed(true);
    assert!(!rig.room.is_open());
    let mut second = rig.place(1);
    first.turn().await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(1), second.turn())
            .await
            .is_err(),
        "the first has not been scheduled yet"
    );
    drop(first);
    second.turn().await.unwrap();
    // The endpoint goes before the second one is scheduled: nobody else begins.
    rig.room.endpoints_changed(false);
    drop(second);
    assert!(!rig.room.is_open());
    rig.room.endpoints_changed(true);
    assert!(rig.room.is_open() && rig.room.place(&request(1)).unwrap().is_none());
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_on() {
    let rig = rig(10, 100);
    let (first, mut second) = (rig.place(1), rig.place(2));
    rig.room.endpoints_changed(true);
    drop(first);
    second.turn().await.unwrap();
    drop(second);
    rig.ended("EvictedContextCancelled", 1);
    rig.ended("Dispatched", 1);
    rig.waiting(0, 0);
}

#[tokio::test]
async fn number_and_bytes_are_bounded() {
    let rig = rig(2, 10);
    let refused = |bytes| {
        let Err(rejection) = rig.room.place(&request(bytes)) else {
            panic!("{bytes} bytes were let in")
        };
        assert_eq!(
            (rejection.code, rejection.reason),
            (ErrorCode::ServiceUnavailable, Some(RejectReason::NoEndpoints))
        );
        assert!(rejection.message.starts_with("no endpoints available: "));
    };
    let first = rig.place(9);
    refused(2);
    let second = rig.place(1);
    drop(first);
    let third = rig.place(9);
    refused(0);
    drop((second, third));
    rig.ended("RejectedNoEndpoints", 2);
    rig.waiting(0, 0);
}

#[tokio::test(start_paused = true)]
async fn time_is_bounded_for_each() {
    let rig = rig(10, 100);
    let mut early = rig.place(1);
    tokio::time::advance(TTL / 2).await;
    let mut late = rig.place(1);
    let start = Instant::now();
    let rejection = early.turn().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), TTL.as_secs() / 2);
    assert_eq!(
        (rejection.code, rejection.reason),
        (ErrorCode::ServiceUnavailable, Some(RejectReason::NoEndpoints))
    );
    assert!(
        rejection
            .message
            .starts_with("request timed out in queue and no endpoints are available: "),
        "{}",
        rejection.message
    );
    drop(early);
    rig.ended("EvictedNoEndpoints", 1);
    rig.room.endpoints_changed(true);
    late.turn().await.unwrap();
}

#[tokio::test]
async fn at_the_end_all_are_sent_away() {
    let rig = rig(10, 100);
    let mut place = rig.place(1);
    rig.stop.cancel();
    let rejection = place.turn().await.unwrap_err();
    assert_eq!(rejection.reason, Some(RejectReason::ShuttingDown));
    drop(place);
    rig.ended("EvictedOther", 1);
}
