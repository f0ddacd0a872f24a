//! Roles that move to another revision together, on fake nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use llmd_e2e_cluster::{Namespace, poll_until};

use super::rig::{condition, read, site, wait_for};

/// Four prefill and two decode engines.
const PAIRED: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: pd}
spec:
  path: prefill-decode
  model: {name: test/model}
  engine: {type: Simulator}
  rollout: {strategy: Coherent, maxSurge: SURGE, maxUnavailable: AWAY}
  pools:
    - &small
      name: prefill
      replicas: 4
      parallelism: {tensor: 1}
      accelerator: {vendor: None}
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 10m, memory: 16Mi}}
    - {<<: *small, name: decode, replicas: 2}
";

/// Engines by pool and revision: wanted, ready.
type Counts = BTreeMap<(String, String), (i32, i32)>;

async fn counts(namespace: &Namespace) -> Option<Counts> {
    let api: Api<Deployment> = Api::namespaced(namespace.client().await.ok()?, namespace.name());
    let list = api
        .list(&ListParams::default().labels("llmd.dev/pool"))
        .await
        .ok()?;
    let of = |deployment: Deployment| {
        let labels = deployment.metadata.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let ready = deployment
            .status
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default();
        (
            (label("llmd.dev/pool"), label("llmd.dev/revision")),
            (wanted, ready),
        )
    };
    Some(list.items.into_iter().map(of).collect())
}

fn wanted(counts: &Counts, pool: &str) -> i32 {
    let mine = counts.iter().filter(|((of, _), _)| of == pool);
    mine.map(|(_, (wanted, _))| wanted).sum()
}

fn revisions(counts: &Counts) -> Vec<String> {
    let mut found: Vec<String> = counts.keys().map(|(_, revision)| revision.clone()).collect();
    found.sort();
    found.dedup();
    found
}

/// Edits the engines and looks at every size on the way.
async fn rolls(surge: i32, away: i32) {
    let (namespace, _operator) = site().await;
    let text = PAIRED
        .replace("SURGE", &surge.to_string())
        .replace("AWAY", &away.to_string());
    namespace.apply(&text).await.unwrap();
    wait_for(&namespace, "pd", "True", "Serving").await;
    let before = revisions(&counts(&namespace).await.unwrap());
    assert_eq!(before.len(), 1);
    let edit = r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/pd", "--type=merge", "-p", edit])
        .await
        .unwrap();
    let mut between = 0;
    let seen = std::sync::Mutex::new(Vec::new());
    poll_until("only the new revision", || async {
        let counts = counts(&namespace).await?;
        seen.lock().unwrap().push(counts.clone());
        let object = read(&namespace, "pd").await?;
        let (is, ..) = condition(&object, "Ready")?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (is == "True" && current && revisions(&counts).iter().all(|one| !before.contains(one))).then_some(())
    })
    .await
    .unwrap();
    for counts in seen.into_inner().unwrap() {
        for (pool, target) in [("prefill", 4), ("decode", 2)] {
            let sum = wanted(&counts, pool);
            assert!(
                sum <= target + surge && sum >= target - away,
                "{pool}: {counts:?}"
            );
        }
        between += usize::from(revisions(&counts).len() == 2);
    }
    assert!(between > 0, "nothing was seen on the way");
    let after = counts(&namespace).await.unwrap();
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after.values().all(|(wanted, ready)| wanted == ready), "{after:?}");
}

#[tokio::test]
async fn roles_move_together_within_their_limits_without_surge() {
    rolls(0, 1).await;
}

#[tokio::test]
async fn roles_move_together_within_their_limits_with_surge() {
    rolls(1, 0).await;
}

/// A revision that never gets ready takes one engine of each role at most, a new number counts meanwhile, and the way
/// back is open.
#[tokio::test]
async fn a_revision_that_cannot_run_stops_and_goes_back() {
    let (namespace, _operator) = site().await;
    namespace
        .apply(&PAIRED.replace("SURGE", "0").replace("AWAY", "1"))
        .await
        .unwrap();
    wait_for(&namespace, "pd", "True", "Serving").await;
    let good = revisions(&counts(&namespace).await.unwrap());
    let wrong = r#"{"spec":{"scheduling":{"nodeSelector":{"no":"where"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/pd", "--type=merge", "-p", wrong])
        .await
        .unwrap();
    wait_for(&namespace, "pd", "False", "no").await;
    let stuck = poll_until("a new revision with pods that nowhere fit", || async {
        let counts = counts(&namespace).await?;
        let new = counts
            .iter()
            .filter(|((_, revision), _)| !good.contains(revision));
        (new.map(|(_, (wanted, _))| wanted).sum::<i32>() > 0).then_some(counts)
    })
    .await
    .unwrap();
    let serving = |counts: &Counts, pool: &str| {
        counts
            .get(&(pool.to_owned(), good[0].clone()))
            .map_or(0, |counts| counts.1)
    };
    assert!(
        serving(&stuck, "prefill") >= 3 && serving(&stuck, "decode") >= 1,
        "{stuck:?}"
    );

    let scale = r#"[{"op":"replace","path":"/spec/pools/1/replicas","value":5}]"#;
    namespace
        .kubectl(["patch", "llmd/pd", "--type=json", "-p", scale])
        .await
        .unwrap();
    poll_until("the new number of one role", || async {
        let counts = counts(&namespace).await?;
        (wanted(&counts, "decode") >= 4).then_some(())
    })
    .await
    .unwrap();

    let back = r#"[{"op":"remove","path":"/spec/scheduling"}]"#;
    namespace
        .kubectl(["patch", "llmd/pd", "--type=json", "-p", back])
        .await
        .unwrap();
    wait_for(&namespace, "pd", "True", "decode 5/5").await;
    assert_eq!(revisions(&counts(&namespace).await.unwrap()), good);
}
