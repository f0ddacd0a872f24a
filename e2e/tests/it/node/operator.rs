//! The operator as users install it: `helm install`, `kubectl apply`, an answer; scale and delete.

use std::path::Path;

use llmd_e2e::tools;
use llmd_e2e_cluster::image::ENVOY;
use llmd_e2e_cluster::{Cluster, DEADLINE, Shared, poll_until, poll_within};
use tokio::sync::OnceCell;

use super::support::{Load, PYTHON};

/// The chart brings our definitions.
static CLUSTER: Shared = Shared::new(|| Cluster::node(2).without_our_crds());
static OPERATED: OnceCell<()> = OnceCell::const_new();

const DEPLOYMENT: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: quickstart}
spec:
  path: simulated
  model: {name: test/model}
";

/// A cluster with the chart installed from this repository, operator available.
async fn operated() -> &'static Cluster {
    let cluster = CLUSTER.get().await.unwrap();
    let install = async || {
        let images = cluster.install_llmd().await?;
        cluster.install_envoy(ENVOY).await?;
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("charts/llmd");
        let chart = chart.display().to_string();
        let repository = format!("image.repository={}", images.repository);
        let tag = format!("image.tag={}", images.tag);
        let release = [
            "install",
            "llmd",
            &chart,
            "--namespace",
            "llmd-system",
            "--create-namespace",
        ];
        let values = ["--set", &repository, "--set", &tag, "--wait", "--timeout=60s"];
        cluster.helm(release.into_iter().chain(values)).await.map(|_| ())
    };
    OPERATED.get_or_try_init(install).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_becomes_a_model_that_answers_scales_and_goes() {
    let namespace = operated().await.namespace().await.unwrap();
    namespace.apply(DEPLOYMENT).await.unwrap();
    let ready = [
        "wait",
        "--for=condition=Ready",
        "llmdeployment/quickstart",
        "--timeout=60s",
    ];
    namespace.kubectl(ready).await.unwrap();

    let address = namespace.service("quickstart-epp", 80).await.unwrap();
    let url = format!("http://{address}/v1");
    let said = tokio::task::spawn_blocking(move || tools::python(PYTHON, &url))
        .await
        .unwrap();
    assert_eq!(said.trim(), "streamed");

    let load = Load::start(address);
    poll_until("traffic to both pods", || async {
        (load.engines().len() == 2).then_some(())
    })
    .await
    .unwrap();
    namespace
        .kubectl(["scale", "llmdeployment/quickstart", "--replicas=2"])
        .await
        .unwrap();
    poll_until("traffic to two more pods", || async {
        (load.engines().len() == 4).then_some(())
    })
    .await
    .unwrap();
    load.finish().await;

    namespace
        .kubectl(["delete", "llmdeployment", "quickstart", "--timeout=60s"])
        .await
        .unwrap();
    let kinds =
        "pods,deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets";
    // routers have 130 s to drain
    poll_within("nothing of the model left", 3 * DEADLINE, || async {
        let left = namespace.kubectl(["get", kinds, "-o", "name"]).await.ok()?;
        let own = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
        left.lines().all(|name| own.contains(&name)).then_some(())
    })
    .await
    .unwrap();
}
