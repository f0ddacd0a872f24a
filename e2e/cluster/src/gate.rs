//! The way into a cluster whose network we are not in: a pod of Envoy passes connections on, and `kubectl port-forward`
//! leads to that pod.
//!
//! `port-forward` to a Service chooses one of its pods and ends with it; the pod here stays, and what it connects to is
//! the Service's own address.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::image::ENVOY;
use crate::namespace::Namespace;
use crate::poll::poll_until;

/// Where the pod listens.
const PORT: u16 = 10000;

impl Namespace {
    /// A local address that leads to an address in a foreign cluster. The pod is in a namespace beside this one, which
    /// goes with it.
    pub(crate) async fn gate(&self, target: SocketAddr) -> anyhow::Result<SocketAddr> {
        let beside = self.beside().await?;
        let name = format!(
            "gate-{}-{}",
            target.ip().to_string().replace(['.', ':'], "-"),
            target.port()
        );
        beside.apply(&pod(&name, target).to_string()).await?;
        let resource = format!("pod/{name}");
        beside
            .kubectl(["wait", "--for=condition=Ready", &resource, "--timeout=60s"])
            .await?;
        beside.port_forward(&name).await
    }

    /// `kubectl port-forward` to a pod, which listens on a free port and says which.
    async fn port_forward(&self, pod: &str) -> anyhow::Result<SocketAddr> {
        let components = &self.cluster().inner.components;
        let name = format!("port-forward-{}-{pod}", self.name());
        let mut command = self.command().into_std();
        command.args(["port-forward", &format!("pod/{pod}"), &format!(":{PORT}")]);
        components.start_once(&name, &command)?;
        let log = components.log_file(&name);
        poll_until(&name, || async {
            if let Err(ended) = components.check(&name) {
                components.print_logs();
                return Some(Err(ended));
            }
            let said = std::fs::read_to_string(&log).ok()?;
            let (_, rest) = said.split_once("Forwarding from ")?;
            rest.split_once(' ')?.0.parse().ok().map(Ok)
        })
        .await?
    }
}

fn pod(name: &str, target: SocketAddr) -> Value {
    let socket =
        |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "gate", "cluster": "target",
    });
    let endpoint = json!({"endpoint": {"address": socket(&target.ip().to_string(), target.port())}});
    let bootstrap = json!({"static_resources": {
        "listeners": [{
            "name": "gate", "address": socket("0.0.0.0", PORT),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
        }],
        "clusters": [{
            "name": "target", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "target", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }],
    }});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "envoy",
                "image": ENVOY,
                "command": ["envoy"],
                "args": ["--log-level", "warn", "--concurrency", "1", "--config-yaml", bootstrap.to_string()],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}
