//! The verbs that talk to a cluster, against a real API server.

mod bundle;
mod diff;
mod plugin;
mod preflight;
mod status;

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use llmd_e2e_cluster::{Cluster, Namespace, Shared};
use serde_json::Value;

use crate::up::support::llmd;

static CLUSTER: Shared = Shared::new(Cluster::api);
static EMPTY: Shared = Shared::new(|| Cluster::api().without_our_crds());

const DEPLOYMENT: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: chat}
spec:
  path: simulated
  pathVersion: v1
  model: {name: test/model}
  engine:
    env:
      - {name: TOKEN, value: canary}
";

/// Exit code, standard output, standard error.
type Done = (i32, String, String);

/// Runs a verb on the cluster of `namespace`.
async fn run(namespace: &Namespace, arguments: &[&str]) -> Done {
    let place = ["--namespace", namespace.name()];
    run_on(namespace.cluster().kubeconfig(), &[arguments, &place].concat()).await
}

async fn run_on(kubeconfig: &Path, arguments: &[&str]) -> Done {
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let mut arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
    arguments.push(kubeconfig);
    // the verb is a process: waiting for it must not hold up the runtime
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        llmd(&arguments)
    })
    .await
    .unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file with `content` that lives as long as the result.
fn file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

async fn namespace() -> Namespace {
    CLUSTER.get().await.unwrap().namespace().await.unwrap()
}

#[tokio::test]
async fn definitions_are_applied_and_applying_again_changes_nothing() {
    let cluster = EMPTY.get().await.unwrap();
    let apply = ["crds", "apply", "--with=gaie,lws", "--output=json"];
    let (code, said, complaint) = run_on(cluster.kubeconfig(), &apply).await;
    assert_eq!(code, 0, "{complaint}");
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client().await.unwrap());
    let mut versions = Vec::new();
    for one in json(&said).as_array().unwrap() {
        let name = one["name"].as_str().unwrap();
        let found = definitions.get(name).await.unwrap();
        versions.push((name.to_owned(), found.metadata.resource_version));
    }
    for name in [
        "llmdeployments.llmd.dev",
        "inferencepools.inference.networking.k8s.io",
        "leaderworkersets.leaderworkerset.x-k8s.io",
    ] {
        assert!(versions.iter().any(|(found, _)| found == name), "{versions:?}");
    }
    let (code, ..) = run_on(cluster.kubeconfig(), &apply).await;
    assert_eq!(code, 0);
    for (name, version) in versions {
        let found = definitions.get(&name).await.unwrap();
        assert_eq!(found.metadata.resource_version, version, "{name}");
    }
}

#[tokio::test]
async fn usage_and_server_errors_have_codes_of_their_own() {
    let (code, _, complaint) = run_on(Path::new("/nonexistent"), &["status", "chat"]).await;
    assert_eq!(code, 2, "{complaint}");
    let (code, _, complaint) = run(&namespace().await, &["status", "chat"]).await;
    assert_eq!(code, 3);
    assert!(complaint.contains("llmd crds apply"), "{complaint}");
}
