//! An engine that answers with errors is left out, and comes back by one request at a time.

use std::time::Instant;

use super::rig::{Rig, rig};
use crate::engine::{Engine, Script};
use crate::wait::until_true;

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}] }"#;

async fn statuses(rig: &Rig, count: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(rig.chat(CHAT).await.status().as_u16());
    }
    all
}

fn why(rig: &Rig) -> Option<&'static str> {
    rig.layer.status(Instant::now())[0].ejection
}

fn is_in(rig: &Rig) -> bool {
    rig.layer.routable().endpoints.len() == 2
}

#[tokio::test]
async fn three_errors_leave_an_engine_out_until_a_trial_is_answered() {
    let (failing, other) = (
        Engine::start(Script::Json).await,
        Engine::start(Script::Json).await,
    );
    let rig = rig(&[&failing, &other]).await;
    failing.fail(true);
    // Equal load goes to the first.
    assert_eq!(
        statuses(&rig, 23).await,
        [[500; 3].as_slice(), &[200; 20]].concat()
    );
    assert_eq!((failing.received().len(), other.received().len()), (3, 20));
    assert_eq!(why(&rig), Some("failing"), "its metrics are read all the while");

    // A trial that fails is one failed request; then it is out for longer.
    until_true("a first trial", || is_in(&rig)).await;
    let tried = statuses(&rig, 5).await;
    assert_eq!(tried, [500, 200, 200, 200, 200]);

    failing.fail(false);
    until_true("a second trial", || is_in(&rig)).await;
    assert_eq!(statuses(&rig, 5).await, [200; 5]);
    assert_eq!(
        failing.received().len(),
        9,
        "the trial and, after it, all of its share"
    );
    let ejections = rig.registry.gather();
    let ejections = ejections
        .iter()
        .find(|family| family.name() == "llm_d_epp_endpoint_ejections_total")
        .expect("a counter");
    let mut counts = ejections.get_metric().iter();
    let failing = counts.find(|count| count.get_label()[0].value() == "failing");
    let count = failing.expect("a series").get_counter().get_value();
    assert_eq!(format!("{count}"), "2");
}

#[tokio::test]
async fn the_last_engine_is_never_left_out() {
    let only = Engine::start(Script::Json).await;
    let rig = rig(&[&only]).await;
    only.fail(true);
    assert_eq!(statuses(&rig, 6).await, [500; 6]);
    only.fail(false);
    assert_eq!(statuses(&rig, 3).await, [200; 3]);
    assert_eq!(why(&rig), None);
}
