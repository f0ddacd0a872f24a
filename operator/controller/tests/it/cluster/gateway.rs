//! Mode Gateway: the test plays the gateway's controller and writes the statuses that one would write.

use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use serde_json::{Value, json};

use super::rig::{CLUSTER, condition, operator, wait_for};

/// With the kinds of Gateway API and its inference extension.
static GATEWAYS: Shared = Shared::new(|| Cluster::control(2).with_foreign(&["gateway", "gaie"]));

const BEHIND: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec:
  path: simulated
  model: {name: test/model}
  router:
    mode: Gateway
    gateway:
      parentRefs: [{name: gate, namespace: gateways, sectionName: https}]
      hostnames: [models.example.com]
";
const STANDALONE: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec:
  path: simulated
  model: {name: test/model}
  router: {mode: Standalone}
";

/// What a gateway writes about both objects.
async fn answer(namespace: &Namespace, status: &str, reason: &str) {
    for (kind, section) in [("httproute", Some("https")), ("inferencepool", None)] {
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({"type": kind, "status": status, "reason": reason, "observedGeneration": 1,
                "message": "canary-5d20", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let mut parent = json!({
            "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gate", "namespace": "gateways"},
            "conditions": [condition("Accepted", status, reason), condition("ResolvedRefs", "True", "ResolvedRefs")],
        });
        if kind == "httproute" {
            parent["controllerName"] = "example.com/gateway".into();
            parent["parentRef"]["sectionName"] = section.into();
        }
        let patch = json!({"status": {"parents": [parent]}}).to_string();
        let words = [
            "patch",
            kind,
            "demo",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        namespace.kubectl(words).await.unwrap();
    }
}

async fn object(namespace: &Namespace, kind: &str, name: &str) -> Option<Value> {
    let text = namespace.kubectl(["get", kind, name, "-o", "json"]).await.ok()?;
    serde_json::from_str(&text).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_leads_to_the_pool_and_its_word_is_in_ready() {
    let namespace = GATEWAYS.get().await.unwrap().namespace().await.unwrap();
    let _operator = operator(&namespace, &["--leader-elect=false"]).await;
    namespace.apply(BEHIND).await.unwrap();
    let waiting = wait_for(&namespace, "demo", "False", "WaitingForGateway").await;
    let (_, _, message) = condition(&waiting, "Ready").unwrap();
    assert!(
        message.contains("Gateway gateways/gate has not answered"),
        "{message}"
    );

    let route = object(&namespace, "httproute", "demo").await.unwrap();
    let backend = &route["spec"]["rules"][0]["backendRefs"][0];
    assert_eq!(
        (&backend["kind"], &backend["name"]),
        (&json!("InferencePool"), &json!("demo"))
    );
    let pool = object(&namespace, "inferencepool", "demo").await.unwrap();
    assert_eq!(pool["spec"]["endpointPickerRef"]["name"], "demo-epp");
    let router = object(&namespace, "deployment", "demo-epp").await.unwrap();
    assert_eq!(router["spec"]["template"]["spec"].get("initContainers"), None);

    answer(&namespace, "False", "NotAllowedByListeners").await;
    let refused = wait_for(&namespace, "demo", "False", "allowedRoutes").await;
    assert_eq!(condition(&refused, "Stalled").unwrap().1, "NotAllowedByListeners");
    assert_eq!(condition(&refused, "RouteAccepted").unwrap().0, "False");
    assert!(!refused["status"].to_string().contains("canary"), "{refused:#}");

    answer(&namespace, "True", "Accepted").await;
    let ready = wait_for(
        &namespace,
        "demo",
        "True",
        "models.example.com through Gateway gate",
    )
    .await;
    assert_eq!(condition(&ready, "RouteAccepted").unwrap().0, "True");
    assert!(ready["status"].get("url").is_none(), "{ready:#}");

    namespace.apply(STANDALONE).await.unwrap();
    let own = wait_for(&namespace, "demo", "True", "http://demo-epp").await;
    assert!(condition(&own, "RouteAccepted").is_none(), "{own:#}");
    poll_until("the route to be pruned", || async {
        object(&namespace, "httproute", "demo")
            .await
            .is_none()
            .then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_kinds_a_gateway_is_a_missing_dependency() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let _operator = operator(&namespace, &["--leader-elect=false"]).await;
    namespace.apply(BEHIND).await.unwrap();
    let missing = wait_for(&namespace, "demo", "False", "DependencyMissing").await;
    let (_, _, message) = condition(&missing, "Stalled").unwrap();
    assert!(
        message.contains("llmd crds apply --with gaie") && message.contains("HTTPRoute"),
        "{message}"
    );
    assert_eq!(condition(&missing, "DependenciesPresent").unwrap().0, "False");
    namespace.apply(STANDALONE).await.unwrap();
    wait_for(&namespace, "demo", "True", "Serving").await;
}
