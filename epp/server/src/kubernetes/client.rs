//! The client: from `--kubeconfig`, `KUBECONFIG`, the home directory, or the pod's ServiceAccount.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Longest wait for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `--kubeconfig` is wrong.
    #[error("--kubeconfig '{path}': {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Nothing says how to reach a cluster.
    #[error(
        "nothing says how to reach a Kubernetes cluster ({0}): run in a pod with a ServiceAccount token, give --kubeconfig, or name a file of endpoints with the file-discovery plugin in dataLayer.discovery.pluginRef"
    )]
    Nowhere(Box<InferConfigError>),
    /// The configuration cannot be used: certificates, authentication.
    #[error("the Kubernetes client cannot be built: {0}")]
    Build(Box<kube::Error>),
}

/// Builds the client; nothing is asked yet. Needs a tokio runtime.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await.map_err(|source| ClientError::Kubeconfig {
            path: path.to_owned(),
            source: Box::new(source),
        })?,
        None => Config::infer()
            .await
            .map_err(|error| ClientError::Nowhere(Box::new(error)))?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| ClientError::Build(Box::new(error)))
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
