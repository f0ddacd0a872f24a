//! A namespace per test.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1 as core;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::builder::Tier;
use crate::cluster::Cluster;
use crate::poll::poll_until;
use crate::tool;

/// A fresh namespace. Dropping it deletes it without waiting; a failing test prints what is in it and the
/// components' errors.
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
    /// For pods of ours that its tests must not see.
    beside: OnceCell<Box<Self>>,
}

impl Namespace {
    pub(crate) async fn create(cluster: &Cluster) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{}-{count}", std::process::id());
        let client = cluster.client().await?;
        create::<core::Namespace>(Api::all(client.clone()), &named(&name)).await?;
        let accounts: Api<core::ServiceAccount> = Api::namespaced(client, &name);
        if cluster.inner.tier == Tier::Api {
            // nobody makes it, and pods are refused without it
            create(accounts, &named("default")).await?;
        } else {
            poll_until(&format!("the ServiceAccount {name}/default"), || async {
                accounts.get("default").await.ok()
            })
            .await?;
        }
        Ok(Self {
            cluster: cluster.clone(),
            name,
            beside: OnceCell::new(),
        })
    }

    /// A second namespace that ends with this one.
    pub(crate) async fn beside(&self) -> anyhow::Result<&Self> {
        let create = async || Box::pin(Self::create(&self.cluster)).await.map(Box::new);
        self.beside.get_or_try_init(create).await.map(Box::as_ref)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// An administrator's client whose default namespace is this one.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.cluster.client_in(&self.name).await
    }

    /// Runs `kubectl --namespace NAME ARGS` and returns its standard output.
    pub async fn kubectl<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(args);
        tool::run(command, None).await
    }

    /// `kubectl apply --server-side` of YAML documents into this namespace.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(["apply", "--server-side", "-f", "-"]);
        tool::run(command, Some(yaml)).await
    }

    /// Prints pods, events and the ends of the containers' logs to standard error.
    pub fn print_state(&self) {
        // a selector that matches every pod
        let logs = [
            "logs",
            "--selector=!llmd-e2e/none",
            "--all-containers",
            "--prefix",
            "--tail=30",
        ];
        for args in [
            &["get", "pods", "-o", "wide"][..],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &logs,
        ] {
            let mut command = self.command().into_std();
            let Ok(output) = command.args(args).arg("--request-timeout=5s").output() else {
                continue;
            };
            eprintln!("--- kubectl {} in {}:", args[..2].join(" "), self.name);
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    pub(crate) fn command(&self) -> tokio::process::Command {
        let mut command = self.cluster.kubectl_command();
        command.args(["--namespace", &self.name]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_state();
            self.cluster.print_logs();
        }
        let mut delete = self.command().into_std();
        delete.args(["delete", "namespace", &self.name, "--wait=false"]);
        // The cluster may be gone or its API server stopped; then there is nothing to delete.
        let _ = delete.args(["--request-timeout=5s"]).output();
    }
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

async fn create<K>(api: Api<K>, object: &Value) -> anyhow::Result<()>
where
    K: kube::Resource + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object.clone())?)
        .await?;
    Ok(())
}
