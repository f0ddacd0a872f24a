//! A namespace with pods whose status the test writes, and a picker that watches it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use llmd_e2e_cluster::{Cluster, Namespace, Shared};
use llmd_epp::health::ServingStatus;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::health::check;
use crate::picker::{CHAT, Call};
use crate::role::{PORTS, Role, until_async};

/// Serves the kinds of the Gateway API Inference Extension.
pub(super) static CLUSTER: Shared = Shared::new(|| Cluster::api().with_foreign(&["gaie"]));
/// Serves no foreign kind.
pub(super) static BARE: Shared = Shared::new(Cluster::api);

/// Port of every pod. Addresses differ, and nothing needs to listen where only the pick is looked at.
pub(super) const PORT: u16 = 8000;

/// An address of the loopback network that nobody else in this process has.
pub(super) fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // Another run beside this one has other addresses.
    let own = u8::try_from(std::process::id() % 200).expect("below 256");
    Ipv4Addr::new(127, 50 + own, high, low)
}

/// A namespace of a cluster.
pub(super) struct Site {
    pub(super) namespace: Namespace,
    pods: Api<Pod>,
}

impl Site {
    pub(super) async fn on(cluster: &Cluster) -> Self {
        let namespace = cluster.namespace().await.expect("a namespace");
        let pods = Api::default_namespaced(namespace.client().await.expect("a client"));
        Self { namespace, pods }
    }

    /// Creates a pod that is not Ready yet.
    pub(super) async fn pod(&self, name: &str, app: &str) -> Ipv4Addr {
        let address = fresh_address();
        self.pod_at(name, app, address).await;
        address
    }

    async fn pod_at(&self, name: &str, app: &str, address: Ipv4Addr) {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "engine", "image": "i", "env": [{"name": "A", "value": "b"}]}]}
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .expect("created");
        self.status(name, address, false).await;
    }

    pub(super) async fn ready_pod(&self, name: &str, app: &str) -> Ipv4Addr {
        let address = self.pod(name, app).await;
        self.status(name, address, true).await;
        address
    }

    /// A Ready pod whose engine listens at `address`.
    pub(super) async fn engine_pod(&self, name: &str, app: &str, address: Ipv4Addr) {
        self.pod_at(name, app, address).await;
        self.status(name, address, true).await;
    }

    pub(super) async fn status(&self, name: &str, address: Ipv4Addr, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({
            "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready}]
        });
        self.patch_pod(name, &json!({ "status": status }), true).await;
    }

    pub(super) async fn patch_pod(&self, name: &str, patch: &Value, status: bool) {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        if status {
            self.pods
                .patch_status(name, &parameters, &patch)
                .await
                .expect("patched");
        } else {
            self.pods.patch(name, &parameters, &patch).await.expect("patched");
        }
    }

    pub(super) async fn delete_pod(&self, name: &str) {
        self.pods
            .delete(name, &kube::api::DeleteParams::default())
            .await
            .expect("deleted");
    }

    /// An `InferencePool` called `pool` over pods of one application.
    pub(super) async fn pool(&self, app: &str, ports: &[u16]) {
        let ports: Vec<String> = ports.iter().map(|port| format!("{{number: {port}}}")).collect();
        let pool = format!(
            "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {{name: pool}}\n\
             spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n  targetPorts: [{}]\n  \
             endpointPickerRef: {{name: epp, port: {{number: 9002}}}}\n",
            ports.join(", ")
        );
        self.namespace.apply(&pool).await.expect("applied");
    }

    /// A picker with further flags, as administrator.
    pub(super) async fn picker(&self, flags: &str) -> Role {
        self.picker_as(self.namespace.cluster().kubeconfig(), flags).await
    }

    pub(super) async fn picker_as(&self, kubeconfig: &Path, flags: &str) -> Role {
        Role::start(format!(
            "{PORTS} --secure-serving=false --bind-address=127.0.0.1 --drain-timeout=0s --tracing=false \
             --kubeconfig={} --pool-namespace={} {flags}",
            kubeconfig.display(),
            self.namespace.name()
        ))
        .await
    }
}

/// Flags of a picker without authentication that selects `app=a`.
pub(super) const SELECTOR: &str =
    "--endpoint-selector=app=a --endpoint-target-ports=8000 --metrics-endpoint-auth=false";
/// Flags of a picker without authentication that serves the pool of [`Site::pool`].
pub(super) const POOL: &str = "--pool-name=pool --metrics-endpoint-auth=false";

impl Role {
    /// Waits for this answer of the health service.
    pub(super) async fn wait_for(&self, service: &str, expected: ServingStatus) {
        let channel = Role::channel(self.addresses.health.port()).await;
        until_async(async || (check(&channel, service).await == expected).then_some(())).await;
    }

    pub(super) async fn endpoints(&self) -> Value {
        let page = self.get("/debug/endpoints").await;
        let (_, body) = page.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str::<Value>(body).expect(body)["endpoints"].take()
    }

    /// Waits until exactly these endpoints are members, as `name address:port`.
    pub(super) async fn wait_for_endpoints(&self, expected: &[String]) {
        until_async(async || {
            let endpoints = self.endpoints().await;
            let line = |endpoint: &Value| {
                let (name, target) = (endpoint["name"].as_str()?, endpoint["target"].as_str()?);
                let (_, name) = name.split_once('/')?;
                Some(format!("{name} {target}"))
            };
            let found: Option<Vec<String>> = endpoints.as_array()?.iter().map(line).collect();
            (found.as_deref() == Some(expected)).then_some(())
        })
        .await;
    }

    /// Sends a request; its answer tells where it goes.
    pub(super) async fn pick(&self, headers: &[(&str, &str)]) -> Call {
        let channel = Role::channel(self.addresses.grpc.port()).await;
        let mut call = Call::open(channel).await;
        call.request(headers, &[CHAT]).await;
        call
    }

    pub(super) async fn destination(&self) -> Option<String> {
        let mut call = self.pick(&[]).await;
        call.forwarded().await.set("x-gateway-destination-endpoint")
    }

    /// The status that a request is rejected with.
    pub(super) async fn rejection(&self) -> Option<i32> {
        let mut call = self.pick(&[]).await;
        call.immediate().await.status.map(|status| status.code)
    }

    pub(super) async fn wait_for_metric(&self, line: &str) {
        until_async(async || {
            let page = self.get("/metrics").await;
            page.lines().any(|found| found.starts_with(line)).then_some(())
        })
        .await;
    }
}

/// What this process logs from the first [`Log::start`] on, other tests' lines included.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn start() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(log.clone());
            tracing::subscriber::set_global_default(subscriber.finish()).expect("the first one");
            log
        };
        LOG.get_or_init(start).clone()
    }

    pub(super) async fn wait_for(&self, words: &str) {
        until_async(async || {
            let log = self.0.lock().expect("log");
            String::from_utf8_lossy(&log).contains(words).then_some(())
        })
        .await;
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("log").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
