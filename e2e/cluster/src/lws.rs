//! The manager of LeaderWorkerSet and `DisaggregatedSet`, as a process beside the API server.
//!
//! Its webhooks are reached by address instead of through a Service, so that it needs no pod, no Service and nobody who
//! issues certificates. They are not optional: they put index labels, environment and affinity on pods.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifacts;
use crate::cluster::Cluster;
use crate::poll::poll_until;
use crate::relay;

/// Starts the manager and registers its webhooks.
pub(crate) async fn start(cluster: &Cluster) -> anyhow::Result<()> {
    let own = cluster.own()?;
    let dir = cluster.inner.dir.join("lws");
    std::fs::create_dir_all(&dir)?;
    let address = own.plane.lws();
    own.keys.sign("lws", "lws", None, &[], &[address.ip()])?;
    for suffix in ["crt", "key"] {
        std::fs::copy(
            own.keys.file(&format!("lws.{suffix}")),
            dir.join(format!("tls.{suffix}")),
        )?;
    }
    let config = dir.join("config.yaml");
    std::fs::write(&config, configuration(&dir, address).to_string())?;
    let mut command = own.plane.program(&artifacts::program("lws")?);
    command
        .env("KUBECONFIG", own.keys.file("controllers.conf"))
        .arg("--config")
        .arg(config);
    cluster.inner.components.start("lws", &command)?;
    let reachable = if own.nodes.is_empty() {
        address
    } else {
        cluster.forward(address.ip(), address.port())?
    };
    poll_until("the LeaderWorkerSet manager", || async {
        if let Err(ended) = cluster.inner.components.check("lws") {
            return Some(Err(ended));
        }
        relay::leads_somewhere(reachable).await.map(Ok)
    })
    .await??;
    let authority = std::fs::read(own.keys.file("ca.crt"))?;
    let manifests = artifacts::foreign_definitions("lws-webhook")?.join("manifests.yaml");
    let webhooks = webhooks(&std::fs::read_to_string(manifests)?, address, &authority)?;
    cluster.apply(&webhooks).await?;
    Ok(())
}

fn configuration(certificates: &Path, address: SocketAddr) -> Value {
    json!({
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": false},
        "internalCertManagement": {"enable": false},
        "webhook": {"host": address.ip(), "port": address.port(), "certDir": certificates},
        "metrics": {"bindAddress": "0"},
        "health": {"healthProbeBindAddress": "0"},
    })
}

/// The registrations of the module with the names that a release gives them, addresses instead of a Service, and only
/// for pods of a LeaderWorkerSet: every other pod would have to pass through too.
fn webhooks(manifests: &str, address: SocketAddr, authority: &[u8]) -> anyhow::Result<String> {
    let mut text = String::new();
    for document in serde_yaml::Deserializer::from_str(manifests) {
        let mut document = Value::deserialize(document)?;
        if document.is_null() {
            continue;
        }
        let name = document["metadata"]["name"]
            .as_str()
            .context("a registration without a name")?;
        document["metadata"]["name"] = format!("lws-{name}").into();
        let webhooks = document["webhooks"]
            .as_array_mut()
            .context("a registration without webhooks")?;
        for webhook in webhooks {
            let path = webhook["clientConfig"]["service"]["path"]
                .as_str()
                .context("a webhook without a path")?;
            webhook["clientConfig"] = json!({
                "url": format!("https://{address}{path}"),
                "caBundle": BASE64_STANDARD.encode(authority),
            });
            if matches!(webhook["name"].as_str(), Some("mpod.kb.io" | "vpod.kb.io")) {
                webhook["objectSelector"] = json!({
                    "matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}],
                });
            }
        }
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&document)?);
    }
    Ok(text)
}
