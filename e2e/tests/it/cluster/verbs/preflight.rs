//! `llmd preflight`.

use serde_json::Value;

use super::{DEPLOYMENT, file, json, namespace, run};

const ON_GPUS: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: big}
spec:
  path: optimized-baseline
  model: {uri: 'pvc://models/big', name: big}
";

fn checks(said: &str) -> Vec<Value> {
    json(said)[0]["checks"].as_array().unwrap().clone()
}

fn of<'a>(checks: &'a [Value], name: &str, verdict: &str) -> &'a Value {
    let found = checks
        .iter()
        .find(|one| one["check"] == name && one["verdict"] == verdict);
    found.unwrap_or_else(|| panic!("no check {name} with {verdict} in {checks:#?}"))
}

#[tokio::test]
async fn what_needs_nothing_special_passes() {
    let namespace = namespace().await;
    let document = file(DEPLOYMENT);
    let path = document.path().to_str().unwrap();
    let (code, said, complaint) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
    assert_eq!(code, 0, "{said}{complaint}");
    let objects = namespace
        .kubectl(["get", "pods,deployments", "--output=name"])
        .await
        .unwrap();
    assert!(!objects.contains("chat"), "a check made {objects}");
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_fix() {
    let namespace = namespace().await;
    namespace
        .apply(
            "
apiVersion: v1
kind: ResourceQuota
metadata: {name: small}
spec: {hard: {pods: '1'}}
",
        )
        .await
        .unwrap();
    let document = file(ON_GPUS);
    let path = document.path().to_str().unwrap();
    let (code, said, complaint) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
    assert_eq!(code, 1, "{said}{complaint}");
    let checks = checks(&said);
    let quota = of(&checks, "quota", "failed");
    assert!(quota["found"].as_str().unwrap().contains("small"), "{quota}");
    let claim = of(&checks, "claim", "failed");
    assert!(claim["found"].as_str().unwrap().contains("models"), "{claim}");
    for failed in checks.iter().filter(|one| one["verdict"] == "failed") {
        assert!(!failed["fix"].as_str().unwrap_or_default().is_empty(), "{failed}");
    }
}

#[tokio::test]
async fn a_namespace_that_forbids_the_pods_says_so_before_they_are_there() {
    let namespace = namespace().await;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let name = namespace.name().to_owned();
    namespace
        .kubectl(["label", "namespace", &name, level])
        .await
        .unwrap();
    let document = file(ON_GPUS);
    let path = document.path().to_str().unwrap();
    let (_, said, _) = run(&namespace, &["preflight", "-f", path, "--output=json"]).await;
    let checks = checks(&said);
    let level = of(&checks, "pod security", "ok");
    assert!(level["found"].as_str().unwrap().contains("restricted"), "{level}");
}
