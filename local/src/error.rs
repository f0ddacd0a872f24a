//! What can go wrong between rendered objects and running processes.

use std::path::PathBuf;

use thiserror::Error;

use crate::gpus::GpuError;

/// Why rendered objects cannot run on this machine.
#[derive(Debug, Error)]
pub enum LocalError {
    /// A part of a rendered object has no counterpart on one machine.
    #[error("{object}: {what} cannot be run without a cluster")]
    Unsupported {
        /// Object or container.
        object: String,
        /// The part.
        what: String,
    },
    /// A Secret is needed and the user's environment does not have its value.
    #[error(
        "container `{container}` takes `{variable}` from key `{key}` of Secret `{secret}`: without a cluster its value \
         comes from your environment, so run `export {variable}=…` first"
    )]
    MissingSecret {
        /// Container name.
        container: String,
        /// Environment variable.
        variable: String,
        /// Secret name.
        secret: String,
        /// Key in the Secret.
        key: String,
    },
    /// A claim is mounted and no directory was given for it.
    #[error(
        "PersistentVolumeClaim `{claim}` has no directory on this machine: add `--claim {claim}=DIRECTORY`"
    )]
    MissingClaim {
        /// Claim name.
        claim: String,
    },
    /// A directory given for a claim does not exist.
    #[error("`--claim {claim}={}`: no such directory", path.display())]
    NoSuchDirectory {
        /// Claim name.
        claim: String,
        /// What was given.
        path: PathBuf,
    },
    /// The container's program is not installed.
    #[error("{workload} runs `{program}`, which is not on PATH: {fix}")]
    MissingProgram {
        /// Workload name.
        workload: String,
        /// Program name.
        program: String,
        /// How to get it.
        fix: &'static str,
    },
    /// An image of which nothing is known but its name.
    #[error(
        "{workload} runs image `{image}` by its own entrypoint: without a cluster only llmd's images and containers \
         with a `command` can run"
    )]
    UnknownImage {
        /// Workload name.
        workload: String,
        /// Image reference.
        image: String,
    },
    /// A container port that nothing tells the program.
    #[error(
        "{workload}: container port {port} is in no flag or variable of container `{container}`, so it cannot be moved \
         to a free port"
    )]
    UnmovablePort {
        /// Workload name.
        workload: String,
        /// Container name.
        container: String,
        /// The port.
        port: u16,
    },
    /// GPUs.
    #[error(transparent)]
    Gpus(#[from] GpuError),
    /// No port is free.
    #[error("no free loopback port between 20000 and 32000: stop other services or other `llmd up`")]
    NoFreePort,
    /// The router's configuration cannot be translated.
    #[error("ConfigMap `{config_map}`, key `{key}`: {problem}")]
    RouterConfig {
        /// ConfigMap name.
        config_map: String,
        /// Key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The edited file describes another deployment.
    #[error(
        "metadata.name changed, so `{from}` would be replaced by `{to}` at once: stop `llmd up` and start it again"
    )]
    Renamed {
        /// Router that runs.
        from: String,
        /// Router of the edited file.
        to: String,
    },
    /// The rendered objects have no router.
    #[error("the rendered objects contain no router: `spec.router.mode` must not be `None` for `llmd up`")]
    NoRouter,
    /// The address for clients is taken.
    #[error(
        "{address} is taken by another process: stop it or choose another port with `--port`, for example `--port {suggestion}`"
    )]
    AddressInUse {
        /// The address.
        address: String,
        /// A port that is free now.
        suggestion: u16,
    },
    /// The address for clients cannot be bound for another reason.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A wider bind than loopback without a key.
    #[error(
        "`--bind {bind}` opens the service to the network: add `--api-key KEY` (or set LLMD_API_KEY), or bind 127.0.0.1"
    )]
    KeyRequired {
        /// The address.
        bind: String,
    },
    /// An attached engine cannot be used.
    #[error("engine {url}: {problem}")]
    Engine {
        /// The URL as given.
        url: String,
        /// What is wrong and the fix.
        problem: String,
    },
    /// The router ended or did not become ready.
    #[error("the router did not start: {0}")]
    Router(String),
    /// A file of the run could not be written or read.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `write`, `create`, …
        action: &'static str,
        /// Path.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A process could not be started.
    #[error("cannot start {what}: {source}")]
    Spawn {
        /// Container.
        what: String,
        /// Cause.
        source: std::io::Error,
    },
}
