//! A running cluster and what tests ask of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use kube::Client;
use nix::sys::signal::Signal;

use crate::builder::{Builder, Tier};
use crate::components::Components;
use crate::control_plane::ControlPlane;
use crate::keys::Authority;
use crate::namespace::Namespace;
use crate::node::{Node, probe};
use crate::relay::Relay;
use crate::{artifacts, client, tool};

/// A handle of a running cluster. It ends with the last handle, and with the process.
///
/// Clones are handles of the same cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) kube: PathBuf,
    pub(crate) tier: Tier,
    pub(crate) kubeconfig: PathBuf,
    /// `None` for a cluster that was there before.
    pub(crate) own: Option<Own>,
    /// Before the components, so that nothing connects to what ends.
    pub(crate) forwards: Mutex<BTreeMap<SocketAddr, Relay>>,
    /// Images that the real nodes have, by name. Held while one is packed: tests share a cluster.
    pub(crate) images: tokio::sync::Mutex<BTreeSet<String>>,
    pub(crate) components: Components,
    pub(crate) dir: PathBuf,
}

/// What is known of a cluster that we started.
pub(crate) struct Own {
    pub(crate) keys: Authority,
    pub(crate) plane: ControlPlane,
    /// Where users on the host find the API server.
    pub(crate) server: String,
    pub(crate) nodes: Vec<Node>,
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

    /// A whole cluster with `nodes` (at least 1) real nodes that run pods, in namespaces of their own. Needs root, Linux
    /// and what [`Cluster::missing_for_nodes`] looks for. With `LLMD_E2E_KUBECONFIG` it is that cluster instead.
    pub fn node(nodes: usize) -> Builder {
        Builder::new(Tier::Node, nodes)
    }

    /// What this machine lacks for [`Cluster::node`], in words; empty when it lacks nothing.
    pub fn missing_for_nodes() -> Vec<String> {
        probe::missing()
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
        let mut command = self.kubectl_command();
        command.args(args);
        tool::run(command, None).await
    }

    pub(crate) fn kubectl_command(&self) -> tokio::process::Command {
        let cache = self.inner.dir.join("kubectl");
        tool::kubectl(&self.inner.kube, self.kubeconfig(), &cache)
    }

    /// `kubectl apply --server-side` of YAML documents.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        let mut command = self.kubectl_command();
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
        let own = self.own()?;
        own.keys.sign(&file, name, group, &[], &[])?;
        let kubeconfig = own.keys.kubeconfig(&file, &own.server)?;
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
        self.own()?.plane.start_apiserver(&self.inner.components)?;
        client::ready(self.kubeconfig(), &self.inner.components)
            .await
            .inspect_err(|_| self.print_logs())
    }

    /// Ends etcd and starts it again on the same store. The API server reconnects by itself.
    pub async fn restart_etcd(&self) -> anyhow::Result<()> {
        let components = &self.inner.components;
        components.stop("etcd", Signal::SIGTERM).await?;
        self.own()?.plane.start_etcd(components).await?;
        client::ready(self.kubeconfig(), components)
            .await
            .context("the API server did not find etcd again")
            .inspect_err(|_| self.print_logs())
    }

    /// A local address that leads to a TCP port of an address in the network of the real nodes: a pod, a Service or a
    /// node. It stays for the life of the cluster.
    pub fn forward(&self, address: IpAddr, port: u16) -> anyhow::Result<SocketAddr> {
        let target = SocketAddr::new(address, port);
        let pid = self
            .real_nodes()?
            .first()
            .context("only a cluster with real nodes has a network")?
            .pid();
        let mut forwards = self.inner.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        let relay = match forwards.entry(target) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(Relay::new(pid, target)?),
        };
        Ok(relay.address())
    }

    /// Whether the cluster was there before (`LLMD_E2E_KUBECONFIG`) and is not ours to break.
    pub fn is_foreign(&self) -> bool {
        self.inner.own.is_none()
    }

    pub(crate) fn own(&self) -> anyhow::Result<&Own> {
        self.inner.own.as_ref().context(
            "the cluster of LLMD_E2E_KUBECONFIG is not ours: nothing of it is started, stopped or signed",
        )
    }

    pub(crate) fn real_nodes(&self) -> anyhow::Result<&[Node]> {
        Ok(&self.own()?.nodes)
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
