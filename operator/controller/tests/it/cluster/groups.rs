//! Engines of several pods, with the real LeaderWorkerSet controller on fake nodes.

use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};

use super::rig::{Operator, condition, operator, read, site, wait_for};

/// Four fake nodes, and the LeaderWorkerSet controller.
static WITH_GROUPS: Shared = Shared::new(|| Cluster::control(4).with_lws());

/// Small simulated groups: one of two pods that prefill, two of two pods that decode.
const WIDE: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: wide}
spec:
  path: wide-expert-parallel
  model: {name: test/model}
  engine: {type: Simulator}
  security: {podSecurity: Restricted}
  rollout: {strategy: RollingUpdate}
  pools:
    - &small
      name: prefill
      parallelism: {data: 2, dataLocal: 1}
      accelerator: {vendor: None}
      resources:
        requests: {cpu: 100m, memory: 64Mi, ephemeral-storage: 1Mi}
        limits: {memory: 64Mi, ephemeral-storage: 1Mi}
    - {<<: *small, name: decode, replicas: 2}
";

async fn groups_site() -> (Namespace, Operator) {
    let namespace = WITH_GROUPS.get().await.unwrap().namespace().await.unwrap();
    let operator = operator(&namespace, &["--leader-elect=false"]).await;
    (namespace, operator)
}

async fn names(namespace: &Namespace, kinds: &str) -> Vec<String> {
    let label = "-lllmd.dev/deployment=wide,app.kubernetes.io/component=modelserver";
    let list = namespace
        .kubectl(["get", kinds, label, "-oname"])
        .await
        .unwrap_or_default();
    let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[tokio::test]
async fn groups_become_ready_scale_roll_and_give_way_to_single_pods() {
    let (namespace, _operator) = groups_site().await;
    namespace.apply(WIDE).await.unwrap();
    let ready = wait_for(&namespace, "wide", "True", "Serving").await;
    assert_eq!(ready["status"]["summary"], "prefill 1/1, decode 2/2");
    assert_eq!(
        names(&namespace, "pods").await.len(),
        6,
        "groups of two pods each"
    );
    // what every rank's command line needs, put there by the controller
    let variables = "-ojsonpath={.spec.containers[0].env[*].name}";
    let worker = namespace
        .kubectl(["get", "pod/wide-decode-1-1", variables])
        .await
        .unwrap();
    for variable in [
        "LWS_LEADER_ADDRESS",
        "LWS_WORKER_INDEX",
        "VLLM_NIXL_SIDE_CHANNEL_HOST",
    ] {
        assert!(worker.contains(variable), "{variable}: {worker}");
    }

    // the number of groups is no new revision
    let revision = "-ojsonpath={.metadata.labels['llmd\\.dev/revision']}";
    let before = namespace
        .kubectl(["get", "pod/wide-decode-0", revision])
        .await
        .unwrap();
    let scale = r#"[{"op":"replace","path":"/spec/pools/1/replicas","value":3}]"#;
    namespace
        .kubectl(["patch", "llmd/wide", "--type=json", "-p", scale])
        .await
        .unwrap();
    wait_for(&namespace, "wide", "True", "decode 3/3").await;
    let after = namespace
        .kubectl(["get", "pod/wide-decode-2-1", revision])
        .await
        .unwrap();
    assert_eq!(before, after);

    let edit = r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/wide", "--type=merge", "-p", edit])
        .await
        .unwrap();
    let rolled = poll_until("all pods of the new revision", || async {
        let all = [
            "get",
            "pods",
            "-lllmd.dev/pool",
            "-ojsonpath={.items[*].metadata.labels['llmd\\.dev/revision']}",
        ];
        let revisions = namespace.kubectl(all).await.ok()?;
        let object = read(&namespace, "wide").await?;
        let (is, ..) = condition(&object, "Ready")?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (is == "True" && current && !revisions.contains(before.trim())).then_some(revisions)
    });
    assert_eq!(rolled.await.unwrap().split_whitespace().count(), 8);

    // one pod holds all ranks now: another kind of the same name
    let edit = r#"[{"op":"replace","path":"/spec/pools/0/parallelism/dataLocal","value":2},{"op":"replace","path":"/spec/pools/1/parallelism/dataLocal","value":2}]"#;
    namespace
        .kubectl(["patch", "llmd/wide", "--type=json", "-p", edit])
        .await
        .unwrap();
    poll_until("Deployments in place of LeaderWorkerSets", || async {
        let sets = names(&namespace, "leaderworkersets").await;
        let deployments = names(&namespace, "deployments").await;
        (sets.is_empty() && deployments.len() == 2).then_some(())
    })
    .await
    .unwrap();

    namespace
        .kubectl(["delete", "llmd", "wide", "--timeout=60s"])
        .await
        .unwrap();
    poll_until("nothing left", || async {
        names(&namespace, "deployments,leaderworkersets,networkpolicies,pods")
            .await
            .is_empty()
            .then_some(())
    })
    .await
    .unwrap();
}

/// As the path has it: each revision has sets of its own, and both roles move in step.
#[tokio::test]
async fn groups_move_to_another_revision_together() {
    let (namespace, _operator) = groups_site().await;
    namespace
        .apply(&WIDE.replace("strategy: RollingUpdate", "strategy: Coherent"))
        .await
        .unwrap();
    wait_for(&namespace, "wide", "True", "decode 2/2").await;
    let before = names(&namespace, "leaderworkersets").await;
    assert_eq!(before.len(), 2, "{before:?}");
    let edit = r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/wide", "--type=merge", "-p", edit])
        .await
        .unwrap();
    poll_until("two other LeaderWorkerSets, and no more", || async {
        let object = read(&namespace, "wide").await?;
        let (is, ..) = condition(&object, "Ready")?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let now = names(&namespace, "leaderworkersets").await;
        let moved = now.len() == 2 && now.iter().all(|name| !before.contains(name));
        (is == "True" && current && moved).then_some(())
    })
    .await
    .unwrap();
}

/// The controller of another project makes and replaces the groups; the status is told from what it made.
#[tokio::test]
async fn a_disaggregated_set_rolls_scales_and_goes() {
    let (namespace, _operator) = groups_site().await;
    let text = WIDE.replace("strategy: RollingUpdate", "strategy: DisaggregatedSet");
    namespace.apply(&text).await.unwrap();
    wait_for(&namespace, "wide", "True", "decode 2/2").await;
    let sets = namespace
        .kubectl(["get", "disaggregatedsets", "-oname"])
        .await
        .unwrap();
    assert_eq!(sets.trim(), "disaggregatedset.disaggregatedset.x-k8s.io/wide");
    let before = names(&namespace, "leaderworkersets").await;
    assert_eq!(before.len(), 2, "{before:?}");

    let scale = r#"[{"op":"replace","path":"/spec/pools/1/replicas","value":3}]"#;
    namespace
        .kubectl(["patch", "llmd/wide", "--type=json", "-p", scale])
        .await
        .unwrap();
    wait_for(&namespace, "wide", "True", "decode 3/3").await;
    assert_eq!(
        names(&namespace, "leaderworkersets").await,
        before,
        "no new revision"
    );

    let edit = r#"{"spec":{"engine":{"args":{"seed":"7"}}}}"#;
    namespace
        .kubectl(["patch", "llmd/wide", "--type=merge", "-p", edit])
        .await
        .unwrap();
    poll_until("two other LeaderWorkerSets, and no more", || async {
        let object = read(&namespace, "wide").await?;
        let (is, ..) = condition(&object, "Ready")?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let now = names(&namespace, "leaderworkersets").await;
        let moved = now.len() == 2 && now.iter().all(|name| !before.contains(name));
        (is == "True" && current && moved).then_some(())
    })
    .await
    .unwrap();

    namespace
        .kubectl(["delete", "llmd", "wide", "--timeout=60s"])
        .await
        .unwrap();
    poll_until("nothing left", || async {
        names(&namespace, "leaderworkersets,disaggregatedsets")
            .await
            .is_empty()
            .then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_the_controller_the_condition_says_what_to_install() {
    let (namespace, _operator) = site().await;
    namespace.apply(WIDE).await.unwrap();
    let object = wait_for(&namespace, "wide", "False", "DependencyMissing").await;
    let (status, _, message) = condition(&object, "DependenciesPresent").unwrap();
    assert_eq!(status, "False");
    assert!(
        message.contains("install the LeaderWorkerSet controller"),
        "{message}"
    );
    assert!(names(&namespace, "deployments").await.is_empty());
}

/// A model whose layers are in two pods, which fake nodes run without an accelerator.
const LAYERS: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: layers}
spec:
  path: optimized-baseline
  model: {uri: 'hf://a/b'}
  pools:
    - name: decode
      replicas: 2
      parallelism: {tensor: 1, pipeline: 2, pipelineLocal: 1}
      accelerator: {vendor: Cpu}
      resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}
";

#[tokio::test]
async fn layers_over_two_pods_are_served_by_their_leader() {
    let (namespace, _operator) = groups_site().await;
    namespace.apply(LAYERS).await.unwrap();
    let ready = wait_for(&namespace, "layers", "True", "Serving").await;
    assert_eq!(ready["status"]["summary"], "decode 2/2");
    let pods = |selector: &'static str| {
        let namespace = &namespace;
        async move {
            let names = "-ojsonpath={.items[*].metadata.name}";
            let all = namespace.kubectl(["get", "pods", selector, names]).await.unwrap();
            let mut all: Vec<String> = all.split_whitespace().map(str::to_owned).collect();
            all.sort();
            all
        }
    };
    assert_eq!(pods("-lllmd.dev/pool=decode").await.len(), 4);
    // what routers select
    let serving = pods("-lllmd.dev/deployment=layers,llm-d.ai/inference-serving=true").await;
    assert_eq!(serving, ["layers-decode-0", "layers-decode-1"]);
    let args = "-ojsonpath={.spec.containers[0].args}";
    for (pod, is_worker) in [("layers-decode-0", false), ("layers-decode-0-1", true)] {
        let args = namespace.kubectl(["get", "pod", pod, args]).await.unwrap();
        assert_eq!(args.contains("--headless"), is_worker, "{pod}: {args}");
        assert!(args.contains("--pipeline-parallel-size=2"), "{pod}: {args}");
    }
}
