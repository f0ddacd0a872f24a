//! The routing sidecar's SSRF protection: requests may name pods of an InferencePool and nobody else.

use std::net::SocketAddr;
use std::process::Command;

use llmd_e2e::http;
use llmd_e2e::poll::free_port;
use llmd_e2e::process::{Process, llmd_bin};
use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use llmd_sim::{SimArgs, Simulator};
use serde_json::json;

static CLUSTER: Shared = Shared::new(|| Cluster::api().with_foreign(&["gaie"]));

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: APP}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
";

async fn engine() -> Simulator {
    let mut args = SimArgs::for_model("m");
    args.transfer.kv_transfer_config = Some(r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#.into());
    args.transfer.nixl_side_channel_host = "127.0.0.1".into();
    args.transfer.nixl_side_channel_port = 0;
    Simulator::start(args.config().unwrap()).await.unwrap()
}

/// A pod of `app` that stands for the engines of this host.
async fn pod(namespace: &Namespace, app: &str) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prefill", "labels": {"app": app}},
        "spec": {"containers": [{"name": "engine", "image": "i"}]}});
    for object in [account, pod] {
        namespace.apply(&object.to_string()).await.unwrap();
    }
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}).to_string();
    let patch = [
        "patch",
        "pod",
        "prefill",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    namespace.kubectl(patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pods_of_the_pool_may_be_named_as_prefill_engines() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let (prefill, decode) = (engine().await, engine().await);
    pod(&namespace, "engine").await;
    namespace.apply(&POOL.replace("APP", "engine")).await.unwrap();
    let port = free_port();
    let mut command = Command::new(llmd_bin());
    command
        .args(["sidecar", "--secure-serving=false", "--enable-ssrf-protection"])
        .arg(format!("--inference-pool={}/pool", namespace.name()))
        .arg(format!("--port={port}"))
        .arg(format!("--model-server-port={}", decode.address().port()))
        .env("KUBECONFIG", namespace.cluster().kubeconfig());
    let _sidecar = Process::spawn("sidecar", command);
    let sidecar = SocketAddr::from(([127, 0, 0, 1], port));
    let own = prefill.address().to_string();
    let ask = async |host: &str| {
        let body = json!({"model": "m", "prompt": "p", "max_tokens": 2}).to_string();
        let headers = [("x-prefiller-host-port", host)];
        http::post(sidecar, "/v1/completions", body, &headers).await
    };
    poll_until("an answer of the sidecar", || async {
        http::get(sidecar, "/health")
            .await
            .ok()
            .filter(|answer| answer.status == 200)
    })
    .await
    .unwrap();

    assert_eq!(ask(&own).await.unwrap().status, 200);
    let page = http::get(prefill.address(), "/metrics").await.unwrap().text();
    let prompts = "vllm:request_success_total{";
    assert!(
        page.lines()
            .any(|line| line.starts_with(prompts) && !line.ends_with(" 0")),
        "the prompt was computed there: {page}"
    );
    for stranger in ["127.0.0.2:8000", "prefill.evil.example:80", "169.254.169.254:80"] {
        let refused = ask(stranger).await.unwrap();
        assert_eq!(
            (refused.status, refused.text().trim()),
            (403, "Forbidden: prefill target not allowed by SSRF protection"),
            "{stranger}"
        );
    }

    namespace.apply(&POOL.replace("APP", "others")).await.unwrap();
    poll_until("the pool selects others", || async {
        (ask(&own).await.ok()?.status == 403).then_some(())
    })
    .await
    .unwrap();
    namespace.apply(&POOL.replace("APP", "engine")).await.unwrap();
    poll_until("the pool selects it again", || async {
        (ask(&own).await.ok()?.status == 200).then_some(())
    })
    .await
    .unwrap();
    namespace
        .kubectl(["delete", "pod", "prefill", "--force", "--grace-period=0"])
        .await
        .unwrap();
    poll_until("the pod is gone", || async {
        (ask(&own).await.ok()?.status == 403).then_some(())
    })
    .await
    .unwrap();
}
