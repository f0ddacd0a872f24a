//! A namespace with an operator of its own.

use std::ffi::OsString;
use std::path::Path;

use kube::api::{Api, ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use llmd_crds::LLMDeployment;
use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use llmd_operator::{Options, serve};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Two fake nodes with eight GPUs each.
pub static CLUSTER: Shared = Shared::new(|| Cluster::control(2));

/// Simulated engines: nothing but pods is needed.
pub const SIMULATED: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec:
  path: simulated
  model: {name: test/model}
";

/// A running operator; dropping it ends it.
pub struct Operator {
    pub task: JoinHandle<Result<(), llmd_operator::RunError>>,
    pub stop: CancellationToken,
    _guard: DropGuard,
}

/// Starts an operator for one namespace, with further flags.
pub async fn operator(namespace: &Namespace, flags: &[&str]) -> Operator {
    operator_as(namespace.cluster().kubeconfig(), namespace, flags).await
}

/// Likewise, as the user of a kubeconfig.
pub async fn operator_as(kubeconfig: &Path, namespace: &Namespace, flags: &[&str]) -> Operator {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let fixed = [
        format!("--namespaces={}", namespace.name()),
        format!("--lease-namespace={}", namespace.name()),
        "--metrics-bind-address=127.0.0.1:0".to_owned(),
        "--health-probe-bind-address=127.0.0.1:0".to_owned(),
    ];
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    let options = Options::parse(fixed.into_iter().chain(flags).map(OsString::from)).unwrap();
    let stop = CancellationToken::new();
    let token = stop.clone();
    let task = tokio::spawn(async move { serve(&options, config, token).await });
    Operator {
        task,
        stop: stop.clone(),
        _guard: stop.drop_guard(),
    }
}

/// A fresh namespace and its operator.
pub async fn site() -> (Namespace, Operator) {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let operator = operator(&namespace, &["--leader-elect=false"]).await;
    (namespace, operator)
}

/// The named resource as it is now.
pub async fn read(namespace: &Namespace, name: &str) -> Option<Value> {
    let resource = ApiResource::erase::<LLMDeployment>(&());
    let client = namespace.client().await.unwrap();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace.name(), &resource);
    let object = api.get_opt(name).await.ok()??;
    serde_json::to_value(object).ok()
}

/// Status, reason and message of a condition.
pub fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits until `Ready` of the current generation has this status and a reason or message with `part`.
pub async fn wait_for(namespace: &Namespace, name: &str, status: &str, part: &str) -> Value {
    let what = format!("{name} Ready={status} with {part:?}");
    let found = poll_until(&what, || async {
        let object = read(namespace, name).await?;
        let (is, reason, message) = condition(&object, "Ready")?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let holds = current && is == status && (reason.contains(part) || message.contains(part));
        holds.then_some(object)
    })
    .await;
    match found {
        Ok(object) => object,
        Err(error) => {
            let last = read(namespace, name).await;
            panic!("{error:#}; last: {:#}", last.unwrap_or_default()["status"]);
        }
    }
}

/// `kubectl get KINDS -o name` of what belongs to `name`, with resource versions.
pub async fn children(namespace: &Namespace, name: &str) -> Vec<String> {
    let kinds = "deployments,services,configmaps,serviceaccounts,roles,rolebindings";
    let label = format!("-lllmd.dev/deployment={name}");
    let columns = "-ocustom-columns=K:.kind,N:.metadata.name,V:.metadata.resourceVersion,O:.metadata.ownerReferences[0].name";
    let list = namespace
        .kubectl(["get", kinds, &label, columns, "--no-headers"])
        .await
        .unwrap();
    let mut lines: Vec<String> = list.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
