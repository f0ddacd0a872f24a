//! The operator as users install it: `helm install`, `kubectl apply`, an answer; scale, changes under load, delete.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use llmd_e2e::process::llmd_bin;
use llmd_e2e::tools;
use llmd_e2e_cluster::image::ENVOY;
use llmd_e2e_cluster::{Cluster, DEADLINE, Namespace, Shared, poll_until, poll_within};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::support::{self, Load, PYTHON};

/// A cluster with the chart installed from this repository, which brings our definitions.
pub(super) struct Operated {
    cluster: &'static Shared,
    installed: OnceCell<()>,
}

pub(super) static BARE: Operated = Operated::on(&support::BARE);
pub(super) static FOREIGN: Operated = Operated::on(&support::FOREIGN);

impl Operated {
    const fn on(cluster: &'static Shared) -> Self {
        Self {
            cluster,
            installed: OnceCell::const_new(),
        }
    }

    /// The cluster, its operator available.
    pub(super) async fn get(&'static self) -> &'static Cluster {
        let cluster = self.cluster.get().await.unwrap();
        self.installed
            .get_or_try_init(|| install(cluster, &[]))
            .await
            .unwrap();
        cluster
    }
}

/// What to hold while a release is installed or a node drained on a cluster that is given: all tests share both.
async fn alone(cluster: &Cluster) -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    if cluster.is_foreign() {
        Some(ALONE.lock().await)
    } else {
        None
    }
}

/// Installs the chart with further values for helm.
pub(super) async fn install(cluster: &Cluster, further: &[&str]) -> anyhow::Result<()> {
    let _alone = alone(cluster).await;
    let images = cluster.install_llmd().await?;
    cluster.install_envoy(ENVOY).await?;
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("charts/llmd");
    let chart = chart.display().to_string();
    let repository = format!("image.repository={}", images.repository);
    let tag = format!("image.tag={}", images.tag);
    // again on a cluster that is given and not made here
    let release = [
        "upgrade",
        "--install",
        "llmd",
        &chart,
        "--namespace",
        "llmd-system",
        "--create-namespace",
    ];
    let values = ["--set", &repository, "--set", &tag, "--wait", "--timeout=60s"];
    cluster
        .helm(release.into_iter().chain(values).chain(further.iter().copied()))
        .await
        .map(|_| ())
}

/// The deployment of the file that the documentation applies.
const QUICKSTART: &str = "quickstart";

/// One deployment in a namespace of its own.
struct Journey {
    namespace: Namespace,
    name: &'static str,
    proxy: &'static str,
}

impl Journey {
    async fn begin(operated: &'static Operated, name: &'static str, proxy: &'static str) -> Self {
        let namespace = operated.get().await.namespace().await.unwrap();
        let journey = Self {
            namespace,
            name,
            proxy,
        };
        if name == QUICKSTART {
            let file = include_str!("../../../../examples/quickstart.yaml");
            journey.namespace.apply(file).await.unwrap();
        } else {
            journey.apply("", "").await;
        }
        let resource = format!("llmdeployment/{name}");
        let ready = ["wait", "--for=condition=Ready", &resource, "--timeout=60s"];
        journey.kubectl(&ready).await;
        journey
    }

    /// Applies the resource; the members of `router.epp.flags` and of `engine` are given.
    async fn apply(&self, flags: &str, engine: &str) {
        let Self { name, proxy, .. } = self;
        let resource = format!(
            "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {{name: {name}}}\nspec:\n  path: simulated\n  \
             model: {{name: test/model}}\n  router: {{proxy: {{type: {proxy}}}, epp: {{flags: {{{flags}}}}}}}\n  \
             engine: {{{engine}}}\n"
        );
        self.namespace.apply(&resource).await.unwrap();
    }

    async fn kubectl(&self, words: &[&str]) -> String {
        self.namespace.kubectl(words).await.unwrap()
    }

    async fn address(&self) -> SocketAddr {
        let service = format!("{}-epp", self.name);
        self.namespace.service(&service, 80).await.unwrap()
    }

    /// Names of the pods of a component.
    async fn pods(&self, component: &str) -> Vec<String> {
        let selector = format!("app.kubernetes.io/component={component}");
        let names = [
            "get",
            "pods",
            "-l",
            &selector,
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ];
        self.kubectl(&names)
            .await
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the operator has acted on the last change and `deployment` has rolled.
    async fn rolled(&self, deployment: &str, container: &str, is_changed: impl Fn(&str) -> bool) {
        let deployment = format!("deployment/{}-{deployment}", self.name);
        let path = format!("jsonpath={{.spec.template.spec.containers[?(@.name=='{container}')]}}");
        poll_until("the change in the template", || async {
            let text = self
                .namespace
                .kubectl(["get", &deployment, "-o", &path])
                .await
                .ok()?;
            is_changed(&text).then_some(())
        })
        .await
        .unwrap();
        self.kubectl(&["rollout", "status", &deployment, "--timeout=90s"])
            .await;
    }

    /// Deletes the resource and waits until nothing of it is left.
    async fn end(&self) {
        let kinds = self.kinds().await;
        self.kubectl(&["delete", "llmdeployment", self.name, "--timeout=60s"])
            .await;
        // routers take their time to drain
        poll_within("nothing of the model left", 3 * DEADLINE, || async {
            let left = self.namespace.kubectl(["get", &kinds, "-o", "name"]).await.ok()?;
            let own = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
            left.lines().all(|name| own.contains(&name)).then_some(())
        })
        .await
        .unwrap();
    }

    /// Every kind that namespaces hold here, but events, which tell of what is gone.
    async fn kinds(&self) -> String {
        let words = ["api-resources", "--namespaced", "--verbs=list", "-o", "name"];
        let kinds = self.kubectl(&words).await;
        let kinds = kinds.lines().filter(|kind| !kind.starts_with("events"));
        kinds.collect::<Vec<_>>().join(",")
    }
}

async fn traffic_to(load: &Load, pods: usize) {
    poll_until("traffic to the pods", || async {
        (load.engines().len() >= pods).then_some(())
    })
    .await
    .unwrap();
}

/// From nothing to an answer, to more pods, to nothing.
async fn answers_scales_and_goes(operated: &'static Operated, name: &'static str, proxy: &'static str) {
    let journey = Journey::begin(operated, name, proxy).await;
    let address = journey.address().await;
    let url = format!("http://{address}/v1");
    let said = tokio::task::spawn_blocking(move || tools::python(PYTHON, &url))
        .await
        .unwrap();
    assert_eq!(said.trim(), "streamed");

    let load = Load::start(address);
    traffic_to(&load, 2).await;
    let resource = format!("llmdeployment/{name}");
    journey.kubectl(&["scale", &resource, "--replicas=2"]).await;
    traffic_to(&load, 4).await;
    load.finish().await;
    tokio::task::block_in_place(|| bundled(&journey));
    journey.end().await;
}

/// A bug report has the picker's log, and nothing that a client has said.
fn bundled(journey: &Journey) {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("out.tar.gz");
    let mut bundle = Command::new(llmd_bin());
    bundle.env("KUBECONFIG", journey.namespace.cluster().kubeconfig());
    bundle.args([
        "bundle",
        journey.name,
        "--namespace",
        journey.namespace.name(),
        "--file",
    ]);
    let done = bundle.arg(&archive).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let tar = |flag: &str, more: &[&str]| {
        let done = Command::new("tar")
            .arg(flag)
            .arg(&archive)
            .args(more)
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let names = tar("-tzf", &[]);
    let log = names
        .lines()
        .find(|name| name.ends_with(".epp.log"))
        .unwrap_or_else(|| panic!("no log in {names}"));
    assert!(tar("-xzOf", &[log]).contains("\"level\""), "{log} is no log");
    assert!(
        !tar("-xzOf", &[]).contains("number 1"),
        "a prompt got into the archive"
    );
}

/// Pods that go, images and flags that change, a node that is drained: nobody notices.
async fn changes_fail_no_request(operated: &'static Operated, name: &'static str, proxy: &'static str) {
    let journey = Journey::begin(operated, name, proxy).await;
    let load = Load::start(journey.address().await);
    traffic_to(&load, 2).await;

    let engine = load.engines().pop_first().unwrap();
    journey.kubectl(&["delete", "pod", &engine]).await;
    traffic_to(&load, 3).await;

    let router = journey.pods("epp").await.remove(0);
    journey.kubectl(&["delete", "pod", &router]).await;

    let cluster = journey.namespace.cluster();
    let next = cluster.install_llmd_again().await.unwrap();
    let image = format!("{}/llmd:{}", next.repository, next.tag);
    let engine = format!("image: '{image}'");
    journey.apply("", &engine).await;
    journey
        .rolled("decode", "modelserver", |text| text.contains(&image))
        .await;
    traffic_to(&load, 5).await;

    journey.apply("v: '3'", &engine).await;
    journey.rolled("epp", "epp", |text| text.contains("--v=3")).await;

    let alone = alone(cluster).await;
    let router = journey.pods("epp").await.pop().unwrap();
    let node = ["get", "pod", &router, "-o", "jsonpath={.spec.nodeName}"];
    let node = journey.kubectl(&node).await;
    let selector = format!("--pod-selector=llmd.dev/deployment={name}");
    let drain = [
        "drain",
        &node,
        &selector,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=150s",
    ];
    journey.kubectl(&drain).await;
    journey.kubectl(&["uncordon", &node]).await;
    drop(alone);
    let sent = load.sent();
    poll_until("traffic after the drain", || async {
        (load.sent() > sent + 50).then_some(())
    })
    .await
    .unwrap();
    load.finish().await;
    journey.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_becomes_a_model_that_answers_scales_and_goes() {
    answers_scales_and_goes(&BARE, QUICKSTART, "Envoy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_foreign_kinds() {
    answers_scales_and_goes(&FOREIGN, "foreign", "Envoy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_without_an_envoy() {
    answers_scales_and_goes(&BARE, "alone", "Builtin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_fail_no_request_through_envoy() {
    changes_fail_no_request(&FOREIGN, "busy-envoy", "Envoy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_fail_no_request_without_an_envoy() {
    changes_fail_no_request(&BARE, "busy-alone", "Builtin").await;
}
