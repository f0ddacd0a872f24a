//! Verbs that talk to a cluster, as the user that the kubeconfig names.
//!
//! ```text
//!  crds apply ─▶ definitions      status ─▶ resource, pods, events      diff ─▶ dry run of what would be applied
//!  preflight ─▶ nodes, claims, quota, admission                         bundle ─▶ one archive for a bug report
//! ```
//!
//! Only `crds apply` writes.

pub(crate) mod bundle;
pub(crate) mod crds;
pub(crate) mod diff;
mod events;
pub(crate) mod installation;
mod kinds;
mod observed;
pub(crate) mod preflight;
mod quantity;
pub(crate) mod status;
mod tar;

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::exit::Failure;

/// Which cluster, and where in it.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Kubeconfig file; default: `KUBECONFIG`, `~/.kube/config`, or the pod's own account
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Namespace; default: the context's
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// A client with the namespace to work in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl ClusterArgs {
    /// Reads the kubeconfig and makes a client; nothing is sent yet.
    pub(crate) async fn connect(&self) -> Result<Session, Failure> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(Failure::usage)?;
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(Failure::usage)?
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(Failure::usage)?
            }
            None => Config::infer().await.map_err(|error| {
                Failure::usage(format!(
                    "no cluster: {error}; set KUBECONFIG or give --kubeconfig"
                ))
            })?,
        };
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(Failure::runtime)?;
        Ok(Session { client, namespace })
    }
}

/// What the API server said, with what was asked.
pub(crate) fn api_failure(doing: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => Failure::runtime(format!("{doing}: {}", status.message)),
        other => Failure::runtime(format!("{doing}: {other}")),
    }
}

/// Whether the user may not do it: then a check is left out and not failed.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether there is no such object or no such kind. An unknown group answers 404 in plain text, without a reason.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
