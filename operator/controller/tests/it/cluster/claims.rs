//! Devices that pods claim, with the real API server, scheduler and claim controller. No driver offers any.

use llmd_e2e_cluster::poll_until;

use super::rig::{site, wait_for};

const CLAIMED: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: claims}
spec:
  path: optimized-baseline
  model: {uri: 'hf://a/b'}
  pools:
    - name: decode
      replicas: 1
      parallelism: {tensor: 2}
      accelerator: {deviceClassName: gpu.example.com}
      resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}
";

#[tokio::test]
async fn a_pod_waits_for_its_claim_and_another_count_is_another_template() {
    let (namespace, _operator) = site().await;
    namespace.apply(CLAIMED).await.unwrap();
    let templates = || async {
        let what = "-ojsonpath={range .items[*]}{.metadata.name}={.spec.spec.devices.requests[0].exactly.count} {end}";
        let text = namespace
            .kubectl(["get", "resourceclaimtemplates", what])
            .await
            .unwrap();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    poll_until("a template for two devices", || async {
        let all = templates().await;
        (all.len() == 1 && all[0].starts_with("claims-decode-") && all[0].ends_with("=2")).then_some(())
    })
    .await
    .unwrap();
    poll_until("a claim of the pod", || async {
        let count = "-ojsonpath={.items[*].spec.devices.requests[0].exactly.count}";
        let counts = namespace.kubectl(["get", "resourceclaims", count]).await.unwrap();
        (counts.trim() == "2").then_some(())
    })
    .await
    .unwrap();
    // nobody has such devices: the scheduler's words are the cause
    let waiting = wait_for(&namespace, "claims", "False", "no DeviceClass gpu.example.com").await;
    assert!(
        waiting["status"]["conditions"].to_string().contains("decode"),
        "{waiting}"
    );

    let edit = r#"[{"op":"replace","path":"/spec/pools/0/parallelism/tensor","value":4}]"#;
    namespace
        .kubectl(["patch", "llmd/claims", "--type=json", "-p", edit])
        .await
        .unwrap();
    poll_until("a template for four in its place", || async {
        let all = templates().await;
        (all.len() == 1 && all[0].ends_with("=4")).then_some(())
    })
    .await
    .unwrap();
    let edit = r#"[{"op":"replace","path":"/spec/pools/0/accelerator","value":{"vendor":"Cpu"}}]"#;
    namespace
        .kubectl(["patch", "llmd/claims", "--type=json", "-p", edit])
        .await
        .unwrap();
    poll_until("no template", || async {
        templates().await.is_empty().then_some(())
    })
    .await
    .unwrap();
}
