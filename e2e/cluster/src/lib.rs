//! A real Kubernetes on one machine: built from pinned Go modules, started per test, gone after it.
//!
//! Takes in: programs that `build.sh` put into the user's cache directory. No Docker, no downloads at run time.
//! Holds: processes, keys and the store of one cluster, in a folder on tmpfs; everything ends with its guard,
//! and also when the test process is killed.
//! Gives out: a kubeconfig, a client, a namespace per test, `kubectl` and `helm`.
//!
//! ```text
//!  Cluster::api()      etcd ◀── kube-apiserver                          schemas, CEL, RBAC, watches
//!  Cluster::control(n)   + controller-manager, scheduler, kwok          n fake nodes, owners, rollouts
//!  Cluster::node(n)      + containerd, kubelet, kube-proxy, CoreDNS     n real nodes in own namespaces
//! ```
#![allow(
    clippy::print_stderr,
    reason = "test support: logs of a failed cluster go to stderr"
)]

pub mod artifacts;
mod builder;
mod client;
mod cluster;
mod components;
mod control_plane;
mod definitions;
mod dns;
mod fake_nodes;
mod gate;
mod golden;
mod http_probe;
pub mod image;
mod installed;
mod janitor;
mod keys;
mod lws;
mod namespace;
mod node;
mod poll;
mod ports;
mod relay;
mod run_folder;
mod shared;
mod tool;

pub use builder::Builder;
pub use cluster::{Cluster, User};
pub use installed::Images;
pub use namespace::Namespace;
pub use poll::{DEADLINE, poll_until, poll_within};
pub use shared::Shared;
