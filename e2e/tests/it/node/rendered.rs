//! Rendered objects applied by hand, without the operator.

use llmd_e2e::tools;
use llmd_e2e_cluster::{DEADLINE, Images, Namespace, Shared, poll_until, poll_within};

use super::support::{BARE, FOREIGN, Load, PYTHON, namespace};
use crate::up::support::{chat, engine, llmd};

const DEPLOYMENT: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: quickstart}
spec:
  path: simulated
  model: {name: test/model}
";

/// Renders and applies, and waits until all is available. Returns the objects and the router's address.
async fn serve(namespace: &Namespace, images: &Images, flags: &[&str]) -> (String, std::net::SocketAddr) {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), DEPLOYMENT).unwrap();
    let file = file.path().display().to_string();
    let fixed = ["render", "-f", &file, "--namespace", namespace.name()];
    let image = [
        "--image-repository",
        &images.repository,
        "--image-tag",
        &images.tag,
    ];
    let (code, objects, complaint) = llmd(&[&fixed[..], &image, flags].concat());
    assert_eq!(code, 0, "{complaint}");
    namespace.apply(&objects).await.unwrap();
    let available = [
        "wait",
        "--for=condition=Available",
        "deployment",
        "--all",
        "--timeout=60s",
    ];
    namespace.kubectl(available).await.unwrap();
    let address = namespace.service("quickstart-epp", 80).await.unwrap();
    (objects, address)
}

async fn answers(shared: &Shared, flags: &[&str]) {
    let (namespace, images) = namespace(shared).await;
    let (_, address) = serve(&namespace, &images, flags).await;
    let url = format!("http://{address}/v1");
    let said = tokio::task::spawn_blocking(move || tools::python(PYTHON, &url))
        .await
        .unwrap();
    assert_eq!(said.trim(), "streamed");

    let prefix = "You are a patient assistant who answers in full sentences. ".repeat(40);
    let ask = async |question: &str| {
        engine(
            &chat(address, "test/model", &format!("{prefix} {question}"), 4)
                .await
                .unwrap(),
        )
    };
    let first = ask("What is one?").await;
    for question in ["What is two?", "What is three?", "What is four?"] {
        assert_eq!(ask(question).await, first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_streams_through_envoy_without_foreign_kinds() {
    answers(&BARE, &["--no-inference-pool"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_streams_through_envoy_with_an_inference_pool() {
    answers(&FOREIGN, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_and_go_under_load_without_a_failed_request() {
    let (namespace, images) = namespace(&BARE).await;
    let (objects, address) = serve(&namespace, &images, &["--no-inference-pool"]).await;
    let load = Load::start(address);

    namespace
        .kubectl(["scale", "deployment/quickstart-decode", "--replicas=3"])
        .await
        .unwrap();
    poll_until("traffic to a third pod", || async {
        (load.engines().len() == 3).then_some(())
    })
    .await
    .unwrap();

    let victim = load.engines().pop_first().unwrap();
    namespace
        .kubectl(["delete", "pod", &victim, "--wait"])
        .await
        .unwrap();
    poll_until("traffic to its successor", || async {
        (load.engines().len() == 4).then_some(())
    })
    .await
    .unwrap();

    namespace
        .kubectl(["rollout", "restart", "deployment/quickstart-decode"])
        .await
        .unwrap();
    namespace
        .kubectl([
            "rollout",
            "status",
            "deployment/quickstart-decode",
            "--timeout=60s",
        ])
        .await
        .unwrap();
    let sent = load.sent();
    poll_until("traffic after the rollout", || async {
        (load.sent() > sent + 50).then_some(())
    })
    .await
    .unwrap();
    load.finish().await;

    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), objects).unwrap();
    let file = file.path().display().to_string();
    namespace
        .kubectl(["delete", "-f", &file, "--wait=false"])
        .await
        .unwrap();
    poll_within("no pod left", 3 * DEADLINE, || async {
        let pods = namespace.kubectl(["get", "pods", "-o", "name"]).await.ok()?;
        pods.is_empty().then_some(())
    })
    .await
    .unwrap();
}
