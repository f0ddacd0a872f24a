//! What kind of cluster to start, and the order in which its parts start.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use crate::cluster::{Cluster, Inner, Own};
use crate::components::Components;
use crate::control_plane::{ControlPlane, Place};
use crate::keys::Authority;
use crate::node::Node;
use crate::poll::poll_until;
use crate::relay::Relay;
use crate::{artifacts, client, definitions, golden, image, lws, node, run_folder, tool};

/// Which processes a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// etcd and API server.
    Api,
    /// And controller manager, scheduler, fake nodes.
    Control,
    /// And real nodes.
    Node,
}

/// A cluster to be; `.await` starts it.
#[derive(Debug, Clone)]
#[must_use = "nothing starts before it is awaited"]
pub struct Builder {
    tier: Tier,
    nodes: usize,
    ours: bool,
    foreign: Vec<&'static str>,
    lws: bool,
}

impl Builder {
    pub(crate) fn new(tier: Tier, nodes: usize) -> Self {
        Self {
            tier,
            nodes,
            ours: true,
            foreign: Vec::new(),
            lws: false,
        }
    }

    /// Serves all foreign kinds: Gateway API, InferencePool and friends, LeaderWorkerSet and `DisaggregatedSet`, KEDA.
    pub fn with_foreign_crds(self) -> Self {
        self.with_foreign(&["gateway", "gaie", "lws", "keda"])
    }

    /// Serves some foreign kinds: names of `crds.txt` (`gateway`, `gaie`, `lws`, `keda`).
    pub fn with_foreign(mut self, names: &[&'static str]) -> Self {
        self.foreign = names.to_vec();
        self
    }

    /// Runs the LeaderWorkerSet and `DisaggregatedSet` manager and serves its kinds; not for [`Cluster::api`].
    pub fn with_lws(mut self) -> Self {
        self.lws = true;
        self
    }

    /// Leaves out our own definitions, for tests that install them.
    pub fn without_our_crds(mut self) -> Self {
        self.ours = false;
        self
    }

    async fn start(mut self) -> anyhow::Result<Cluster> {
        if self.lws && !self.foreign.contains(&"lws") {
            self.foreign.push("lws");
        }
        let kube = artifacts::program("kube")?;
        if self.tier == Tier::Node
            && let Some(kubeconfig) = std::env::var_os("LLMD_E2E_KUBECONFIG")
        {
            return existing(kube, kubeconfig.into(), &self.foreign).await;
        }
        let folders = self
            .foreign
            .iter()
            .map(|name| artifacts::foreign_definitions(name))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let golden = golden::path(&kube, &folders)?;
        if !golden.exists() {
            make_golden(&kube, &folders, &golden).await?;
        }
        let mut starting = Starting::new(kube, Some(&golden))?;
        let (keys, plane) = if self.tier == Tier::Node {
            starting.real_nodes(self.nodes).await?
        } else {
            starting.on_host().await?
        };
        self.finish(starting.cluster(self.tier, keys, plane)).await
    }

    /// Everything that needs an API server.
    async fn finish(&self, cluster: Cluster) -> anyhow::Result<Cluster> {
        let finished = async {
            let components = &cluster.inner.components;
            let own = cluster.own()?;
            if self.tier != Tier::Api {
                own.plane.start_controllers(components)?;
            }
            let client = cluster.client().await?;
            if self.ours {
                definitions::apply_ours(&client).await?;
            }
            match self.tier {
                Tier::Api if self.lws => {
                    bail!("pods of a LeaderWorkerSet need a control plane, not only an API server")
                }
                Tier::Api => {}
                Tier::Control => {
                    if self.nodes > 0 {
                        cluster.add_fake_nodes(self.nodes, &[], 8).await?;
                    }
                }
                Tier::Node => node::ready(&cluster, &own.nodes).await?,
            }
            if self.tier != Tier::Api {
                let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
                poll_until("the ServiceAccount default/default", || async {
                    accounts.get("default").await.ok()
                })
                .await?;
            }
            if self.lws {
                lws::start(&cluster).await?;
            }
            Ok(())
        };
        match finished.await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.print_logs();
                Err(error)
            }
        }
    }
}

impl IntoFuture for Builder {
    type Output = anyhow::Result<Cluster>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// A cluster whose parts start.
struct Starting {
    dir: PathBuf,
    components: Components,
    kube: PathBuf,
    kubeconfig: PathBuf,
    forwards: BTreeMap<SocketAddr, Relay>,
    nodes: Vec<Node>,
}

impl Starting {
    fn new(kube: PathBuf, golden: Option<&Path>) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = run_folder::create(COUNT.fetch_add(1, Ordering::Relaxed))?;
        let components = Components::new(&dir)?;
        if let Some(golden) = golden {
            golden::restore(golden, &dir)?;
        }
        std::fs::create_dir_all(dir.join("pki"))?;
        Ok(Self {
            kubeconfig: dir.join("pki/admin.conf"),
            dir,
            components,
            kube,
            forwards: BTreeMap::new(),
            nodes: Vec::new(),
        })
    }

    /// The control plane as processes beside the test.
    async fn on_host(&mut self) -> anyhow::Result<(Authority, ControlPlane)> {
        let keys = Authority::open(&self.dir.join("pki"))?;
        let plane = ControlPlane::prepare(&self.dir, self.kube.clone(), Place::Host, &keys)?;
        self.store_and_api(&plane).await?;
        Ok((keys, plane))
    }

    /// The control plane in the network of a first real node, and all nodes.
    async fn real_nodes(&mut self, count: usize) -> anyhow::Result<(Authority, ControlPlane)> {
        let missing = node::probe::missing();
        if !missing.is_empty() {
            bail!("real nodes cannot run here; missing: {}", missing.join("; "));
        }
        let count = u8::try_from(count).ok().filter(|count| (1..=50).contains(count));
        let count = count.context("a cluster has 1 to 50 real nodes")?;
        let first = Node::new(&self.components, &self.dir, 1, &[]).await?;
        let pid = first.pid();
        self.nodes.push(first);
        let keys = Authority::open(&self.dir.join("pki"))?;
        let plane = ControlPlane::prepare(&self.dir, self.kube.clone(), Place::Node(pid), &keys)?;
        let relay = Relay::new(pid, plane.api())?;
        keys.kubeconfig("admin", &format!("https://{}", relay.address()))?;
        self.forwards.insert(plane.api(), relay);
        for number in 2..=count {
            let node = Node::new(&self.components, &self.dir, number, &self.nodes).await?;
            self.nodes.push(node);
        }
        let pause = self.dir.join("pause.tar");
        image::pack_pause(&pause)?;
        let containers = try_join_all(self.nodes.iter().map(|node| async {
            node.start_containerd(&self.components).await?;
            node.import(&pause).await
        }));
        if let Err(error) = tokio::try_join!(self.store_and_api(&plane), containers) {
            self.components.print_logs();
            return Err(error);
        }
        let server = plane.server();
        for node in &self.nodes {
            node.start_kubelet(&self.components, &self.kube, &keys, &server)?;
        }
        self.nodes[0].start_dns(&self.components, &keys, &server)?;
        Ok((keys, plane))
    }

    async fn store_and_api(&self, plane: &ControlPlane) -> anyhow::Result<()> {
        let started = async {
            plane.start_etcd(&self.components).await?;
            plane.start_apiserver(&self.components)?;
            client::ready(&self.kubeconfig, &self.components).await
        };
        started
            .await
            .inspect_err(|_| self.components.print_logs())
            .context("the control plane did not start")
    }

    fn cluster(self, tier: Tier, keys: Authority, plane: ControlPlane) -> Cluster {
        let server = match self.forwards.get(&plane.api()) {
            None => plane.server(),
            Some(relay) => format!("https://{}", relay.address()),
        };
        Cluster::new(Inner {
            kube: self.kube,
            tier,
            kubeconfig: self.kubeconfig,
            own: Some(Own {
                keys,
                plane,
                server,
                nodes: self.nodes,
            }),
            forwards: Mutex::new(self.forwards),
            images: tokio::sync::Mutex::default(),
            components: self.components,
            dir: self.dir,
        })
    }
}

/// The API group by which a cluster is seen to serve definitions of `crds.txt`.
const FOREIGN_GROUPS: [(&str, &str); 4] = [
    ("gateway", "gateway.networking.k8s.io"),
    ("gaie", "inference.networking.k8s.io"),
    ("lws", "leaderworkerset.x-k8s.io"),
    ("keda", "keda.sh"),
];

/// A cluster that somebody else runs; we only get a folder for helm's files.
async fn existing(kube: PathBuf, kubeconfig: PathBuf, foreign: &[&str]) -> anyhow::Result<Cluster> {
    let starting = Starting::new(kube, None)?;
    let cluster = Cluster::new(Inner {
        kube: starting.kube,
        tier: Tier::Node,
        kubeconfig,
        own: None,
        forwards: Mutex::default(),
        images: tokio::sync::Mutex::default(),
        components: starting.components,
        dir: starting.dir,
    });
    let served = cluster.client().await?.list_api_groups().await?;
    let missing: Vec<&str> = FOREIGN_GROUPS
        .into_iter()
        .filter(|(name, group)| foreign.contains(name) && served.groups.iter().all(|one| one.name != *group))
        .map(|(_, group)| group)
        .collect();
    if !missing.is_empty() {
        bail!(
            "the cluster of LLMD_E2E_KUBECONFIG does not serve {}: install their definitions, or leave out the tests \
             with foreign kinds",
            missing.join(", ")
        );
    }
    Ok(cluster)
}

/// Starts a cluster from nothing, gives it the foreign definitions and saves it.
async fn make_golden(kube: &Path, folders: &[PathBuf], golden: &Path) -> anyhow::Result<()> {
    let mut starting = Starting::new(kube.to_path_buf(), None)?;
    let (_, plane) = starting.on_host().await?;
    let made = async {
        let cache = starting.dir.join("kubectl");
        definitions::apply_folders(|| tool::kubectl(kube, &starting.kubeconfig, &cache), folders).await?;
        plane.stop_store(&starting.components).await?;
        golden::save(&starting.dir, golden)
    };
    made.await.inspect_err(|_| starting.components.print_logs())
}
