//! Kubernetes clients from kubeconfigs, and the wait for an API server.

use std::path::Path;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::components::Components;
use crate::poll::poll_until;

/// A client that lives as long as the runtime that it is made in: make one per test.
pub(crate) async fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    connect_in(kubeconfig, "default").await
}

/// A client with another default namespace.
pub(crate) async fn connect_in(kubeconfig: &Path, namespace: &str) -> anyhow::Result<Client> {
    let mut file = Kubeconfig::read_from(kubeconfig)?;
    for context in &mut file.contexts {
        if let Some(context) = &mut context.context {
            context.namespace = Some(namespace.to_owned());
        }
    }
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until the API server says that it is ready.
pub(crate) async fn ready(kubeconfig: &Path, components: &Components) -> anyhow::Result<()> {
    let client = connect(kubeconfig).await?;
    poll_until("the API server's readiness", || async {
        if let Err(ended) = components.check("kube-apiserver") {
            return Some(Err(ended));
        }
        let request = Request::get("/readyz").body(Vec::new()).ok()?;
        client.request_text(request).await.ok().map(|_| Ok(()))
    })
    .await?
}
