//! A resource that was stored under another schema than today's stops nobody else, and says what is wrong with it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use llmd_e2e_cluster::{Cluster, Namespace, poll_until};
use serde_json::{Value, json};

use super::rig::{SIMULATED, condition, operator, wait_for};
use super::schema::trial;

const DEFINITION: &str = "llmdeployments.llmd.dev";

/// Puts a schema in the place of the served version's, and waits until a wrong spec is taken or refused by it.
async fn schema(namespace: &Namespace, schema: &Value, taken: bool) {
    let wrong = json!({"path": "simulated", "model": {"name": "m"}, "pools": "many"});
    let client = namespace.client().await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let patch =
        json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch).unwrap());
    definitions
        .patch(DEFINITION, &PatchParams::default(), &patch)
        .await
        .unwrap();
    poll_until("the schema in force", || async {
        let outcome = trial(namespace, "LLMDeployment", "probe", &wrong).await;
        (outcome.is_ok() == taken).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_that_the_schema_does_not_allow_any_more_says_so_and_the_others_go_on() {
    // It edits a definition, so the cluster is its own.
    let cluster = Cluster::control(1).await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(namespace.client().await.unwrap());
    let strict = definitions.get(DEFINITION).await.unwrap();
    let strict = serde_json::to_value(&strict.spec.versions[0].schema).unwrap()["openAPIV3Schema"].clone();
    let mut lax = strict.clone();
    lax["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    if let Some(schema) = lax.as_object_mut() {
        schema.remove("x-kubernetes-validations");
    }
    let wrong = |name: &str, spec: &str| {
        format!(
            "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let typed = wrong(
        "typed",
        "{path: simulated, model: {name: test/model}, pools: many}",
    );
    let listed = wrong(
        "listed",
        "{path: simulated, model: {name: test/model}, router: {proxy: {type: Nginx}}}",
    );
    schema(&namespace, &lax, true).await;
    namespace.apply(&typed).await.unwrap();
    namespace.apply(&listed).await.unwrap();
    schema(&namespace, &strict, false).await;

    let first = operator(&namespace, &["--leader-elect=false"]).await;
    namespace.apply(SIMULATED).await.unwrap();
    wait_for(&namespace, "demo", "True", "decode 2/2").await;
    for (name, field) in [("typed", "spec.pools"), ("listed", "spec.router.proxy.type")] {
        let object = wait_for(&namespace, name, "False", field).await;
        assert_eq!(condition(&object, "Ready").unwrap().1, "InvalidSpec");
        assert_eq!(condition(&object, "Stalled").unwrap().0, "True");
    }
    // Another operator meets them again.
    drop(first);
    let _second = operator(&namespace, &["--leader-elect=false"]).await;
    let scale = ["scale", "llmd/demo", "--replicas=2"];
    namespace.kubectl(scale).await.unwrap();
    wait_for(&namespace, "demo", "True", "decode 4/4").await;

    for name in ["typed", "listed"] {
        let spec = json!({"spec": {"pools": null, "router": null}}).to_string();
        let fix = ["patch", "llmd", name, "--type=merge", "-p", &spec];
        namespace.kubectl(fix).await.unwrap();
        let object = wait_for(&namespace, name, "True", "decode 2/2").await;
        assert_eq!(condition(&object, "Stalled"), None, "{name}");
    }
}
