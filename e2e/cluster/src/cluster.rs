//! A running cluster and what tests ask of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use kube::Client;
use nix::sys::signal::Signal;

use crate::builder::{Builder, Tier};
use crate::components::Components;
use crate::control_plane::ControlPlane;
use crate::keys::Authority;
use crate::namespace::Namespace;
use crate::{artifacts, client, tool};

/// A handle of a running cluster. It ends with the last handle, and with the process.
///
/// Clones are handles of the same cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) kube: PathBuf,
    pub(crate) tier: Tier,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) keys: Authority,
    pub(crate) plane: ControlPlane,
    pub(crate) components: Components,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Cluster")
            .field("dir", &self.dir)
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

/// A user of the API server, made by [`Cluster::user`].
#[derive(Debug)]
pub struct User {
    kubeconfig: PathBuf,
}

impl User {
    /// Path of the user's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client that acts as the user.
    pub async fn client(&self) -> anyhow::Result<Client> {
        client::connect(&self.kubeconfig).await
    }
}

impl Cluster {
    /// etcd and an API server with our definitions: schemas, CEL, RBAC, server-side apply, watches. Nothing acts on
    /// objects: pods stay Pending, nothing is garbage-collected, namespaces never finish deleting.
    pub fn api() -> Builder {
        Builder::new(Tier::Api, 0)
    }

    /// A whole control plane with `nodes` fake nodes of eight GPUs (`nvidia.com/gpu`) each. Pods become Ready at
    /// once and have an address, but nothing listens there.
    pub fn control(nodes: usize) -> Builder {
        Builder::new(Tier::Control, nodes)
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.inner.kubeconfig
    }

    /// An administrator's client. It works as long as the runtime that it is made in: make one per test.
    pub async fn client(&self) -> anyhow::Result<Client> {
        client::connect(self.kubeconfig()).await
    }

    pub(crate) async fn client_in(&self, namespace: &str) -> anyhow::Result<Client> {
        client::connect_in(self.kubeconfig(), namespace).await
    }

    /// Runs `kubectl ARGS` as administrator and returns its standard output.
    pub async fn kubectl<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        let mut command = tool::kubectl(&self.inner.kube, self.kubeconfig());
        command.args(args);
        tool::run(command, None).await
    }

    /// `kubectl apply --server-side` of YAML documents.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        let mut command = tool::kubectl(&self.inner.kube, self.kubeconfig());
        command.args(["apply", "--server-side", "-f", "-"]);
        tool::run(command, Some(yaml)).await
    }

    /// Runs `helm ARGS` as administrator and returns its standard output. Helm's own files go to the run folder.
    pub async fn helm<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(artifacts::program("helm")?);
        command.env("KUBECONFIG", self.kubeconfig()).args(args);
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "helm/cache"),
            ("HELM_CONFIG_HOME", "helm/config"),
            ("HELM_DATA_HOME", "helm/data"),
        ] {
            command.env(variable, self.inner.dir.join(folder));
        }
        tool::run(command, None).await
    }

    /// A fresh namespace, deleted with its guard.
    pub async fn namespace(&self) -> anyhow::Result<Namespace> {
        Namespace::create(self).await
    }

    /// A user with a client certificate for any name and group. It may do what RBAC lets it do: nothing yet.
    pub fn user(&self, name: &str, group: Option<&str>) -> anyhow::Result<User> {
        let file: String = format!("user-{name}-{}", group.unwrap_or_default())
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        self.inner.keys.sign(&file, name, group, &[], &[])?;
        let kubeconfig = self.inner.keys.kubeconfig(&file, &self.inner.plane.server())?;
        Ok(User { kubeconfig })
    }

    /// Ends the API server at once, as a crash would.
    pub async fn stop_apiserver(&self) -> anyhow::Result<()> {
        self.inner
            .components
            .stop("kube-apiserver", Signal::SIGKILL)
            .await
    }

    /// Starts the API server again at the same address and waits until it is ready.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        self.inner.plane.start_apiserver(&self.inner.components)?;
        client::ready(self.kubeconfig(), &self.inner.components)
            .await
            .inspect_err(|_| self.print_logs())
    }

    /// Ends etcd and starts it again on the same store. The API server reconnects by itself.
    pub async fn restart_etcd(&self) -> anyhow::Result<()> {
        let components = &self.inner.components;
        components.stop("etcd", Signal::SIGTERM).await?;
        self.inner.plane.start_etcd(components).await?;
        client::ready(self.kubeconfig(), components)
            .await
            .context("the API server did not find etcd again")
            .inspect_err(|_| self.print_logs())
    }

    /// Prints the last error lines of each component to standard error.
    pub fn print_logs(&self) {
        self.inner.components.print_logs();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.components.print_logs();
        }
    }
}
