//! From a chart of an earlier release to today's and back: no engine is restarted, and models outlive the operator.
//!
//! Pods of the operator do not really run on fake nodes: processes with the flags and the permissions that the chart
//! gives take their place.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;
use llmd_e2e::process::{Process, llmd_bin};
use llmd_e2e_cluster::{Cluster, DEADLINE, Namespace, Shared, User, poll_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::up::support::llmd;

static CLUSTER: Shared = Shared::new(|| Cluster::control(2).without_our_crds());
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/llmd");
const TODAY: &str = concat!("v", env!("CARGO_PKG_VERSION"));
const EARLIER: &str = "v0.0.9";
/// A sentence of the definitions, as it is and as it was.
const SENTENCE: [&str; 2] = ["A recipe that LLMDeployments name", "A recipe of long ago"];

/// One that runs our own image, and one that runs another's; neither pins anything.
const MODELS: [(&str, &str); 2] = [
    ("ours", "{path: simulated, model: {name: test/model}}"),
    (
        "theirs",
        "{model: {uri: 'hf://org/model'}, pools: [{name: decode, replicas: 2, parallelism: {tensor: 1}}]}",
    ),
];

fn document(name: &str, spec: &str) -> String {
    format!("apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// Today's chart as an earlier release might have had it.
fn earlier_chart() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(CHART), folder.path());
    let edit = |file: &str, from: &str, to: &str| {
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    let version = env!("CARGO_PKG_VERSION");
    edit("Chart.yaml", version, &EARLIER[1..]);
    edit("files/crds/llmd.dev.yaml", SENTENCE[0], SENTENCE[1]);
    edit("values.yaml", "replicaCount: 2", "replicaCount: 1");
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A namespace with models, on a cluster with a release of the chart.
struct Site {
    namespace: Namespace,
    account: User,
}

impl Site {
    async fn helm(&self, arguments: &[&str]) {
        let place = ["--namespace", "llmd-system"];
        let cluster = self.namespace.cluster();
        cluster.helm([arguments, &place].concat()).await.unwrap();
    }

    /// The operator that the chart installed, beginning to act.
    async fn operator(&self) -> Process {
        let client = self.namespace.client().await.unwrap();
        let deployments: Api<Deployment> = Api::namespaced(client, "llmd-system");
        let installed = deployments.get("llmd").await.unwrap();
        let pod = installed.spec.unwrap().template.spec.unwrap();
        let mut arguments = pod.containers[0].args.clone().unwrap();
        for argument in &mut arguments {
            if let Some((name, _)) = argument.split_once("-address=") {
                *argument = format!("{name}-address=127.0.0.1:0");
            }
        }
        arguments.push("--lease-namespace=llmd-system".to_owned());
        let mut command = std::process::Command::new(llmd_bin());
        command
            .args(arguments)
            .env("KUBECONFIG", self.account.kubeconfig());
        Process::spawn("operator", command)
    }

    async fn value(&self, kind: &str, name: &str) -> Value {
        let text = self
            .namespace
            .kubectl(["get", kind, name, "-ojson"])
            .await
            .unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Name, UID and template of every engine's pod, and the engines' Deployments with their generation.
    async fn engines(&self) -> Vec<String> {
        let client = self.namespace.client().await.unwrap();
        let serving = ListParams::default().labels("app.kubernetes.io/component=modelserver");
        let pods: Api<Pod> = Api::namespaced(client.clone(), self.namespace.name());
        let mut found: Vec<String> = pods
            .list(&serving)
            .await
            .unwrap()
            .into_iter()
            .map(|pod| {
                let hash = pod.metadata.labels.unwrap()["pod-template-hash"].clone();
                format!(
                    "{} {} {hash}",
                    pod.metadata.name.unwrap(),
                    pod.metadata.uid.unwrap()
                )
            })
            .collect();
        let deployments: Api<Deployment> = Api::namespaced(client, self.namespace.name());
        found.extend(deployments.list(&serving).await.unwrap().into_iter().map(|one| {
            format!(
                "{} {}",
                one.metadata.name.unwrap(),
                one.metadata.generation.unwrap()
            )
        }));
        found.sort();
        found
    }

    /// A change that no engine sees; waits until the operator that acts now has carried it out, and so looked at all
    /// that belongs to the model.
    async fn settle(&self, failure_mode: &str) {
        for (name, _) in MODELS {
            let patch = json!({"spec": {"router": {"failureMode": failure_mode}}}).to_string();
            let patch = ["patch", "llmd", name, "--type=merge", "-p", &patch];
            self.namespace.kubectl(patch).await.unwrap();
            self.ready(name).await;
        }
    }

    async fn ready(&self, name: &str) {
        let what = format!("{name} is ready in its generation");
        let done = poll_until(&what, || async {
            let object = self.value("llmd", name).await;
            let status = &object["status"];
            let current = status["observedGeneration"] == object["metadata"]["generation"];
            let conditions = status["conditions"].as_array()?;
            let is_ready = conditions
                .iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True");
            (current && is_ready).then_some(())
        });
        if let Err(error) = done.await {
            panic!("{error:#}: {:#}", self.value("llmd", name).await["status"]);
        }
    }

    /// Tag of the first container's image of a Deployment.
    async fn tag(&self, deployment: &str) -> String {
        let object = self.value("deployment", deployment).await;
        let containers = object["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap();
        let mut images = containers.iter().filter_map(|one| one["image"].as_str());
        let ours = images.find(|image| image.contains("/llmd")).unwrap();
        ours.rsplit(':').next().unwrap().to_owned()
    }

    /// `llmd diff` by the program of today: exit code and text.
    async fn diff(&self, arguments: &[&str]) -> (i32, String) {
        let kubeconfig = format!("--kubeconfig={}", self.namespace.cluster().kubeconfig().display());
        let place = ["--namespace", self.namespace.name(), &kubeconfig];
        let arguments: Vec<String> = ["diff"]
            .iter()
            .chain(arguments)
            .chain(&place)
            .map(|&one| one.to_owned())
            .collect();
        let run = move || llmd(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let (code, said, complaint) = tokio::task::spawn_blocking(run).await.unwrap();
        (code, said + &complaint)
    }
}

#[tokio::test]
async fn an_upgrade_a_rollback_and_an_uninstall_restart_no_engine() {
    let cluster = CLUSTER.get().await.unwrap();
    let account = "system:serviceaccount:llmd-system:llmd";
    let site = Site {
        namespace: cluster.namespace().await.unwrap(),
        account: cluster.user(account, Some("system:serviceaccounts")).unwrap(),
    };
    let earlier = earlier_chart();
    site.helm(&[
        "install",
        "llmd",
        earlier.path().to_str().unwrap(),
        "--create-namespace",
    ])
    .await;
    let operator = site.operator().await;
    for (name, spec) in MODELS {
        site.namespace.apply(&document(name, spec)).await.unwrap();
        site.ready(name).await;
    }
    let before = site.engines().await;
    assert_eq!(before.len(), 2 + 4, "{before:#?}");
    assert_eq!(
        [site.tag("ours-epp").await, site.tag("ours-decode").await],
        [EARLIER; 2]
    );

    stop(operator);
    site.helm(&["upgrade", "llmd", CHART]).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client().await.unwrap());
    let recipes = definitions.get("welllitpaths.llmd.dev").await.unwrap();
    let text = serde_json::to_string(&recipes).unwrap();
    assert!(text.contains(SENTENCE[0]) && !text.contains(SENTENCE[1]));
    // with the release come another version of the path and another image
    let mut newer = simulated();
    newer["spec"]["version"] = "v2".into();
    newer["spec"]["template"]["engine"]["image"] = "registry.example/engine:v2".into();
    site.namespace.apply(&newer.to_string()).await.unwrap();
    let operator = site.operator().await;
    site.settle("FailClose").await;
    assert_eq!(site.engines().await, before, "the upgrade touched an engine");
    assert_eq!(
        site.tag("ours-epp").await,
        TODAY,
        "a router is the operator's own"
    );
    let path = site.value("llmd", "ours").await["status"]["path"].clone();
    assert_eq!(
        path,
        json!({"name": "simulated", "version": "v1", "source": "Builtin", "release": EARLIER})
    );

    // what a move would change, and that nothing else would
    for (name, _) in MODELS {
        let (code, said) = site.diff(&[name]).await;
        assert_eq!(code, 0, "{said}");
    }
    let (code, said) = site.diff(&["ours", "--to-path-version=v2"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("+        image: registry.example/engine:v2"),
        "{said}"
    );
    assert_eq!(site.engines().await, before, "a diff changed something");

    // an earlier operator finds what it had made
    stop(operator);
    site.helm(&["rollback", "llmd", "1"]).await;
    let operator = site.operator().await;
    site.settle("FailOpen").await;
    assert_eq!(site.engines().await, before, "the rollback touched an engine");
    assert_eq!(site.tag("ours-epp").await, EARLIER);

    stop(operator);
    site.helm(&["upgrade", "llmd", CHART]).await;
    let operator = site.operator().await;
    // a pin that moves is what restarts engines
    let patch = [
        "patch",
        "llmd",
        "ours",
        "--type=merge",
        "-p",
        r#"{"spec":{"pathVersion":"v2"}}"#,
    ];
    site.namespace.kubectl(patch).await.unwrap();
    site.ready("ours").await;
    let path = site.value("llmd", "ours").await["status"]["path"].clone();
    assert_eq!(
        path,
        json!({"name": "simulated", "version": "v2", "source": "Resource", "release": TODAY})
    );
    let moved = site.engines().await;
    let of = |all: &[String], name: &str| -> Vec<String> {
        all.iter().filter(|one| one.starts_with(name)).cloned().collect()
    };
    assert_ne!(of(&moved, "ours"), of(&before, "ours"));
    assert_eq!(of(&moved, "theirs"), of(&before, "theirs"));

    stop(operator);
    site.helm(&["uninstall", "llmd"]).await;
    assert!(
        definitions
            .get_opt("llmdeployments.llmd.dev")
            .await
            .unwrap()
            .is_some()
    );
    let path = site.value("llmd", "ours").await["status"]["path"]["version"].clone();
    assert_eq!(path, "v2");
    assert_eq!(of(&site.engines().await, "theirs"), of(&before, "theirs"));
}

/// As the kubelet does; the Lease is free at once.
fn stop(mut operator: Process) {
    operator.signal(Signal::SIGTERM);
    operator.wait(DEADLINE);
}

/// The built-in path, as a resource.
fn simulated() -> Value {
    let (code, said, complaint) = llmd(&["paths", "show", "simulated", "--output=json"]);
    assert_eq!(code, 0, "{complaint}");
    serde_json::from_str(&said).unwrap()
}
