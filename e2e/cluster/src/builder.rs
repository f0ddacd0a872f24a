//! What kind of cluster to start, and the order in which its parts start.

use std::future::{Future, IntoFuture};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use crate::cluster::{Cluster, Inner};
use crate::components::Components;
use crate::control_plane::{ControlPlane, Place};
use crate::keys::Authority;
use crate::poll::poll_until;
use crate::{artifacts, client, definitions, golden, run_folder, tool};

/// Which processes a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// etcd and API server.
    Api,
    /// And controller manager, scheduler, fake nodes.
    Control,
}

/// A cluster to be; `.await` starts it.
#[derive(Debug, Clone)]
#[must_use = "nothing starts before it is awaited"]
pub struct Builder {
    tier: Tier,
    nodes: usize,
    ours: bool,
    foreign: Vec<&'static str>,
}

impl Builder {
    pub(crate) fn new(tier: Tier, nodes: usize) -> Self {
        Self {
            tier,
            nodes,
            ours: true,
            foreign: Vec::new(),
        }
    }

    /// Serves all foreign kinds: Gateway API, InferencePool and friends, LeaderWorkerSet and DisaggregatedSet, KEDA.
    pub fn with_foreign_crds(self) -> Self {
        self.with_foreign(&["gateway", "gaie", "lws", "keda"])
    }

    /// Serves some foreign kinds: names of `crds.txt` (`gateway`, `gaie`, `lws`, `keda`).
    pub fn with_foreign(mut self, names: &[&'static str]) -> Self {
        self.foreign = names.to_vec();
        self
    }

    /// Leaves out our own definitions, for tests that install them.
    pub fn without_our_crds(mut self) -> Self {
        self.ours = false;
        self
    }

    async fn start(self) -> anyhow::Result<Cluster> {
        let kube = artifacts::program("kube")?;
        let folders = self
            .foreign
            .iter()
            .map(|name| artifacts::foreign_definitions(name))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let golden = golden::path(&kube, &folders)?;
        if !golden.exists() {
            make_golden(&kube, &folders, &golden).await?;
        }
        let started = Started::new(&kube, Some(&golden)).await?;
        let logs_on_failure = |error| {
            started.components.print_logs();
            error
        };
        self.finish(&started, &kube).await.map_err(logs_on_failure)?;
        let cluster = started.into_cluster(kube, self.tier);
        if self.nodes > 0 {
            cluster
                .add_fake_nodes(self.nodes, &[], 8)
                .await
                .inspect_err(|_| cluster.print_logs())?;
        }
        Ok(cluster)
    }

    async fn finish(&self, started: &Started, kube: &Path) -> anyhow::Result<()> {
        if self.tier == Tier::Control {
            started.plane.start_controllers(&started.components)?;
            crate::fake_nodes::start_kwok(&started.components, &started.keys.file("admin.conf"))?;
        }
        let client = client::connect(&started.kubeconfig).await?;
        if self.ours {
            definitions::apply_ours(&client).await?;
        }
        if self.tier == Tier::Control {
            let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
            poll_until("the ServiceAccount default/default", || async {
                started.components.check("kube-controller-manager").ok()?;
                accounts.get("default").await.ok()
            })
            .await?;
        }
        // Discovery of what kubectl will be asked for, once and not in the first test.
        let mut list = tool::kubectl(kube, &started.kubeconfig);
        list.args(["api-resources", "--no-headers"]);
        tool::run(list, None).await?;
        Ok(())
    }
}

impl IntoFuture for Builder {
    type Output = anyhow::Result<Cluster>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// A control plane that answers.
struct Started {
    dir: PathBuf,
    components: Components,
    keys: Authority,
    plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Started {
    async fn new(kube: &Path, golden: Option<&Path>) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = run_folder::create(COUNT.fetch_add(1, Ordering::Relaxed))?;
        let components = Components::new(&dir)?;
        if let Some(golden) = golden {
            golden::restore(golden, &dir)?;
        }
        let pki = dir.join("pki");
        std::fs::create_dir_all(&pki)?;
        let keys = Authority::open(&pki)?;
        let plane = ControlPlane::prepare(&dir, kube.to_path_buf(), Place::Host, &keys)?;
        let kubeconfig = pki.join("admin.conf");
        let started = Self {
            dir,
            components,
            keys,
            plane,
            kubeconfig,
        };
        if let Err(error) = started.store_and_api().await {
            started.components.print_logs();
            return Err(error).context("the control plane did not start");
        }
        Ok(started)
    }

    async fn store_and_api(&self) -> anyhow::Result<()> {
        self.plane.start_etcd(&self.components).await?;
        self.plane.start_apiserver(&self.components)?;
        client::ready(&self.kubeconfig, &self.components).await
    }

    fn into_cluster(self, kube: PathBuf, tier: Tier) -> Cluster {
        Cluster::new(Inner {
            dir: self.dir,
            kube,
            tier,
            kubeconfig: self.kubeconfig,
            keys: self.keys,
            plane: self.plane,
            components: self.components,
        })
    }
}

/// Starts a cluster from nothing, gives it the foreign definitions and saves it.
async fn make_golden(kube: &Path, folders: &[PathBuf], golden: &Path) -> anyhow::Result<()> {
    let started = Started::new(kube, None).await?;
    let made = async {
        definitions::apply_folders(|| tool::kubectl(kube, &started.kubeconfig), folders).await?;
        started.plane.stop_store(&started.components).await?;
        golden::save(&started.dir, golden)
    };
    made.await.inspect_err(|_| started.components.print_logs())
}
