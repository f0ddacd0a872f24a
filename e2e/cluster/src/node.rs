//! Real nodes: containerd, kubelet and kube-proxy in namespaces of their own, so that the host never sees them.
//!
//! ```text
//!  host ── relay thread (in the network namespace) ──▶ 10.0.0.1:6443, Services, pods
//!  node n1: etcd, API server, controllers, CoreDNS, bridge eth0 10.0.0.1 ── pods 10.244.0.0/24
//!  node n2: veth eth0 10.0.0.2, enslaved to n1's bridge                  ── pods 10.244.1.0/24
//! ```

mod configs;
mod namespaces;
pub(crate) mod probe;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;

use crate::artifacts;
use crate::cluster::Cluster;
use crate::components::Components;
use crate::keys::Authority;
use crate::poll::poll_until;
use crate::tool;

/// A node's namespaces and folder.
#[derive(Debug)]
pub(crate) struct Node {
    number: u8,
    dir: PathBuf,
    /// The first process of the namespaces, by its number on the host.
    pid: u32,
}

impl Node {
    /// Makes the namespaces of node `number` (from 1) and connects it with the `others`.
    pub(crate) async fn new(
        components: &Components,
        run: &Path,
        number: u8,
        others: &[Self],
    ) -> anyhow::Result<Self> {
        let dir = run.join("nodes").join(format!("n{number}"));
        std::fs::create_dir_all(&dir)?;
        let pid = namespaces::make(components, &dir, number).await?;
        let node = Self { number, dir, pid };
        namespaces::connect(&node, others)?;
        Ok(node)
    }

    /// Its name as a Kubernetes node.
    pub(crate) fn name(&self) -> String {
        format!("n{}", self.number)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.number))
    }

    fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number - 1)
    }

    /// Name of the cgroup that holds the node's pods: one folder per cluster, one below it per node.
    fn cgroup(&self) -> String {
        format!("{}/{}", namespaces::cluster_cgroup(&self.dir), self.name())
    }

    /// A command in all namespaces of the node. Paths must be absolute.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--"])
            .arg(program);
        command
    }

    /// A command of the host's files in the node's network.
    pub(crate) fn network_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string(), "--net", "--"])
            .arg(program);
        command
    }

    /// Starts containerd and waits until it answers.
    pub(crate) async fn start_containerd(&self, components: &Components) -> anyhow::Result<()> {
        let config = configs::containerd(&self.dir, &self.pods())?;
        let mut command = self.command("/usr/bin/containerd");
        command.arg("--config").arg(config);
        let name = format!("containerd-{}", self.name());
        components.start(&name, &command)?;
        poll_until(&name, || async {
            if let Err(ended) = components.check(&name) {
                return Some(Err(ended));
            }
            tool::run(self.ctr(&["version"]), None).await.ok().map(|_| Ok(()))
        })
        .await?
    }

    /// Makes a docker-archive known to the node under its own name.
    pub(crate) async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let mut command = self.ctr(&["images", "import"]);
        command.arg(archive);
        tool::run(command, None)
            .await
            .with_context(|| format!("cannot import {}", archive.display()))?;
        Ok(())
    }

    fn ctr(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.command("/usr/bin/ctr");
        command.args(["--namespace", "k8s.io"]).args(args);
        command.into()
    }

    /// Starts kubelet and kube-proxy.
    pub(crate) fn start_kubelet(
        &self,
        components: &Components,
        kube: &Path,
        keys: &Authority,
        server: &str,
    ) -> anyhow::Result<()> {
        let name = self.name();
        let user = format!("kubelet-{name}");
        keys.sign(
            &user,
            &format!("system:node:{name}"),
            Some("system:nodes"),
            &[&name],
            &[self.address()],
        )?;
        let kubeconfig = keys.kubeconfig(&user, server)?;
        let config = configs::kubelet(&self.dir, &self.cgroup(), keys, &user)?;
        let mut command = self.command(kube);
        command
            .arg("kubelet")
            .arg(format!("--config={}", config.display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--root-dir={}", self.dir.join("state/kubelet").display()))
            .arg(format!("--hostname-override={name}"))
            .arg(format!("--node-ip={}", self.address()))
            .arg("--node-labels=llmd-e2e/node=real");
        components.start(&user, &command)?;

        let config = configs::kube_proxy(&self.dir, &name, keys)?;
        let mut command = self.command(kube);
        command
            .arg("kube-proxy")
            .arg(format!("--config={}", config.display()));
        components.start(&format!("kube-proxy-{name}"), &command)?;
        Ok(())
    }

    /// Starts the cluster's DNS server on this node.
    pub(crate) fn start_dns(
        &self,
        components: &Components,
        keys: &Authority,
        server: &str,
    ) -> anyhow::Result<()> {
        keys.sign("coredns", "coredns", Some("system:masters"), &[], &[])?;
        let kubeconfig = keys.kubeconfig("coredns", server)?;
        let corefile = configs::corefile(&self.dir, &kubeconfig)?;
        let mut command = self.network_command(artifacts::program("coredns")?);
        command.arg("-conf").arg(corefile);
        components.start("coredns", &command)?;
        Ok(())
    }
}

impl Cluster {
    /// The name of the `number`th real node, from 1.
    pub fn node_name(&self, number: usize) -> anyhow::Result<String> {
        Ok(self.real_node(number)?.name())
    }

    /// Runs a program in the namespaces of the `number`th real node (from 1) and returns its standard output. It has
    /// the host's files, so paths must be absolute.
    pub async fn on_node<S: AsRef<std::ffi::OsStr>>(
        &self,
        number: usize,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        let mut command = self.real_node(number)?.command(program);
        command.args(args);
        tool::run(command.into(), None).await
    }

    /// Ends the `number`th real node at once, with all its pods, as a loss of power would. The first node holds the
    /// control plane and stays.
    pub async fn kill_node(&self, number: usize) -> anyhow::Result<()> {
        if number == 1 {
            bail!("node 1 holds the control plane; kill another one");
        }
        let name = self.real_node(number)?.name();
        self.inner
            .components
            .stop(&format!("node-{name}"), nix::sys::signal::Signal::SIGKILL)
            .await
    }

    /// Imports a docker-archive into every real node.
    pub async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        try_join_all(self.real_nodes()?.iter().map(|node| node.import(archive))).await?;
        Ok(())
    }

    fn real_node(&self, number: usize) -> anyhow::Result<&Node> {
        let nodes = self.real_nodes()?;
        number
            .checked_sub(1)
            .and_then(|index| nodes.get(index))
            .with_context(|| format!("there is no real node {number}"))
    }
}

/// Waits until the nodes are Ready and the DNS server has seen all Services.
pub(crate) async fn ready(cluster: &Cluster, nodes: &[Node]) -> anyhow::Result<()> {
    let api: Api<NodeObject> = Api::all(cluster.client().await?);
    for node in nodes {
        cluster.node_ready(&api, &node.name()).await?;
        cluster.set_gpus(&node.name(), 8).await?;
    }
    let dns = cluster.forward(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), configs::DNS_READY)?;
    poll_until("the DNS server", || async {
        crate::http_probe::ok(dns, "/ready").await
    })
    .await
}
