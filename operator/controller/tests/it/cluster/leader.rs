//! Two operators, one acts.

use llmd_e2e_cluster::poll_until;

use super::rig::{CLUSTER, SIMULATED, operator, wait_for};

#[tokio::test]
async fn one_of_two_acts_and_the_other_takes_over() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let first = operator(&namespace, &[]).await;
    namespace.apply(SIMULATED).await.unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
    let second = operator(&namespace, &[]).await;
    namespace.apply(&SIMULATED.replace("demo", "next")).await.unwrap();
    wait_for(&namespace, "next", "True", "Serving").await;

    first.stop.cancel();
    poll_until("the end of the first", || async {
        first.task.is_finished().then_some(())
    })
    .await
    .unwrap();
    namespace.apply(&SIMULATED.replace("demo", "last")).await.unwrap();
    wait_for(&namespace, "last", "True", "Serving").await;
    assert!(!second.task.is_finished());
}
