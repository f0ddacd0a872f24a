//! Paths and accelerator profiles say who uses them.

use llmd_e2e_cluster::poll_until;

use super::rig::{SIMULATED, site, wait_for};

#[tokio::test]
async fn a_path_of_the_cluster_serves_and_counts_its_users() {
    let (namespace, _operator) = site().await;
    let path = namespace.name();
    let config = r"{apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugins: [{type: queue-scorer}, {type: max-score-picker}],
        schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: max-score-picker}]}]}";
    let own = format!(
        "apiVersion: llmd.dev/v1alpha1\nkind: WellLitPath\nmetadata: {{name: {path}}}\nspec:\n  version: v1\n  template:\n    \
         engine: {{type: Simulator}}\n    pools: [{{name: decode, replicas: 1}}]\n    router: {{epp: {{config: {{inline: {config}}}}}}}\n"
    );
    namespace.cluster().apply(&own).await.unwrap();
    namespace
        .apply(&SIMULATED.replace("path: simulated", &format!("path: {path}")))
        .await
        .unwrap();
    let object = wait_for(&namespace, "demo", "True", "decode 1/1").await;
    assert_eq!(object["status"]["path"]["source"], "Resource");
    let used = async |wanted: &str| {
        poll_until(&format!("used by {wanted}"), || async {
            let count = "-ojsonpath={.status.usedBy}";
            let count = namespace
                .cluster()
                .kubectl(["get", "wlp", path, count])
                .await
                .ok()?;
            (count == wanted).then_some(())
        })
        .await
        .unwrap();
    };
    used("1").await;
    namespace.kubectl(["delete", "llmd", "demo"]).await.unwrap();
    used("0").await;
    namespace
        .cluster()
        .kubectl(["delete", "wlp", path])
        .await
        .unwrap();
}
