//! Nodes without a machine, and the GPUs that a node claims to have.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::artifacts;
use crate::cluster::Cluster;
use crate::components::Components;
use crate::poll::poll_until;

/// Resource name of NVIDIA GPUs.
const GPU: &str = "nvidia.com/gpu";

/// kwok acts as the kubelet of the nodes that carry its annotation. Its built-in stages make pods Ready at once.
fn start_kwok(components: &Components, kubeconfig: &std::path::Path) -> anyhow::Result<()> {
    let mut command = Command::new(artifacts::program("kwok")?);
    command.arg("--kubeconfig").arg(kubeconfig).args([
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--cidr=10.250.0.0/16",
        "--node-ip=10.0.0.1",
        // without leases pods lose their readiness after a minute
        "--node-lease-duration-seconds=40",
        "--server-address=",
        "--v=ERROR",
    ]);
    components.start_once("kwok", &command)
}

impl Cluster {
    /// Adds `count` fake nodes with these labels and `gpus` NVIDIA GPUs each, and waits until they are Ready. Returns
    /// their names. Needs a controller manager and a scheduler: not for [`Cluster::api`].
    pub async fn add_fake_nodes(
        &self,
        count: usize,
        labels: &[(&str, &str)],
        gpus: u32,
    ) -> anyhow::Result<Vec<String>> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        self.own()?;
        start_kwok(&self.inner.components, self.kubeconfig())?;
        let nodes: Api<Node> = Api::all(self.client().await?);
        let first = NUMBER.fetch_add(count, Ordering::Relaxed);
        let names: Vec<String> = (first..first + count).map(|n| format!("fake-{n}")).collect();
        try_join_all(names.iter().map(|name| async {
            let node = serde_json::from_value(fake_node(name, labels, gpus))?;
            nodes.create(&PostParams::default(), &node).await?;
            self.node_ready(&nodes, name).await
        }))
        .await?;
        Ok(names)
    }

    /// Makes a node claim `gpus` NVIDIA GPUs. The scheduler and the kubelet believe it.
    pub async fn set_gpus(&self, node: &str, gpus: u32) -> anyhow::Result<()> {
        self.own()?;
        let nodes: Api<Node> = Api::all(self.client().await?);
        let amount = json!({GPU: gpus.to_string()});
        let patch = json!({"status": {"capacity": amount, "allocatable": amount}});
        nodes
            .patch_status(node, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        Ok(())
    }

    pub(crate) async fn node_ready(&self, nodes: &Api<Node>, name: &str) -> anyhow::Result<()> {
        poll_until(&format!("node {name} Ready"), || async {
            let conditions = nodes.get_status(name).await.ok()?.status?.conditions?;
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
                .then_some(())
        })
        .await
    }
}

fn fake_node(name: &str, labels: &[(&str, &str)], gpus: u32) -> Value {
    let mut all = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "llmd-e2e/node": "fake",
    });
    for (key, value) in labels {
        all[*key] = json!(value);
    }
    let resources = json!({"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "250", GPU: gpus.to_string()});
    json!({
        "metadata": {
            "name": name,
            "labels": all,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "status": {"capacity": resources, "allocatable": resources},
    })
}
