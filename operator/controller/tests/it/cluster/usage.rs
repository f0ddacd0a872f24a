//! Paths and accelerator profiles say who uses them, and an edited path leaves its users as they are.

use llmd_e2e_cluster::{Namespace, poll_until};

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
    an_edit_moves_nothing_until_the_version_moves(&namespace, &own).await;
    namespace.kubectl(["delete", "llmd", "demo"]).await.unwrap();
    used("0").await;
    namespace
        .cluster()
        .kubectl(["delete", "wlp", path])
        .await
        .unwrap();
}

/// `own` is the text of the path that `demo` uses in version `v1`, with one pod.
async fn an_edit_moves_nothing_until_the_version_moves(namespace: &Namespace, own: &str) {
    let engine = async |column: &str| {
        let column = format!("-ojsonpath={{{column}}}");
        namespace
            .kubectl(["get", "deployment", "demo-decode", &column])
            .await
            .unwrap()
    };
    let replicas = async |wanted: &str| {
        poll_until(&format!("{wanted} pods"), || async {
            (engine(".spec.replicas").await == wanted).then_some(())
        })
        .await
        .unwrap();
    };
    // A change that shows that the operator has looked, and repaired, with the path as it was.
    let touch = async |label: &str| {
        let drift = ["scale", "deployment", "demo-decode", "--replicas=3"];
        namespace.kubectl(drift).await.unwrap();
        replicas("1").await;
        let patch = format!(r#"{{"spec":{{"commonMetadata":{{"labels":{{"look":"{label}"}}}}}}}}"#);
        let patch = ["patch", "llmd", "demo", "--type=merge", "-p", &patch];
        namespace.kubectl(patch).await.unwrap();
        poll_until("another look", || async {
            (engine(".metadata.labels.look").await == label).then_some(())
        })
        .await
        .unwrap();
        let object = wait_for(namespace, "demo", "True", "decode 1/1").await;
        assert_eq!(object["status"]["path"]["version"], "v1");
    };
    let kept = async || {
        let label = "-lapp.kubernetes.io/component=well-lit-path";
        let names = ["get", "configmaps", label, "-oname"];
        namespace.kubectl(names).await.unwrap()
    };
    let first = kept().await;
    assert_eq!(first.lines().count(), 1, "{first}");

    let two = own.replace("replicas: 1", "replicas: 2");
    namespace.cluster().apply(&two).await.unwrap();
    touch("same-version").await;
    namespace
        .cluster()
        .apply(&two.replace("version: v1", "version: v2"))
        .await
        .unwrap();
    touch("other-version").await;
    assert_eq!(kept().await, first);

    let to = |version: &str| format!(r#"{{"spec":{{"pathVersion":"{version}"}}}}"#);
    let patch = ["patch", "llmd", "demo", "--type=merge", "-p"];
    namespace
        .kubectl(patch.iter().copied().chain([&*to("v2")]))
        .await
        .unwrap();
    replicas("2").await;
    wait_for(namespace, "demo", "True", "decode 2/2").await;
    poll_until("one kept copy, of the other version", || async {
        let now = kept().await;
        (now.lines().count() == 1 && now != first).then_some(())
    })
    .await
    .unwrap();

    // Nobody has the first version any more.
    namespace
        .kubectl(patch.iter().copied().chain([&*to("v1")]))
        .await
        .unwrap();
    let object = wait_for(namespace, "demo", "False", "InvalidSpec").await;
    let message = object["status"]["conditions"].to_string();
    assert!(
        message.contains("no such version") && message.contains("v2"),
        "{message}"
    );
    assert_eq!(engine(".spec.replicas").await, "2", "what runs keeps running");
}
