//! Runs **rendered objects** (not the custom resource) as child processes of one machine, so that `llmd up` and a
//! cluster cannot drift: exactly the rendered arguments and environment, with addresses, ports and volumes
//! translated.
//!
//! ```text
//!  file ─▶ decode ─▶ validate ─▶ render ─▶ Objects ─▶ Plan ─▶ Cluster ─▶ pods: processes + probes
//!  (llmd-render, re-run on every edit)      translate/          │  ready pods
//!                                                               ▼
//!        client ─▶ router (llmd-epp, built-in proxy) ◀── endpoints file (file discovery)
//! ```

pub mod attach;
pub mod backoff;
pub mod cluster;
pub mod container;
pub mod endpoints;
pub mod error;
pub mod events;
pub mod gpus;
pub mod parent;
pub mod probe;
pub mod reconcile;
pub mod routing;
pub mod source;
pub mod translate;
pub mod up;
pub mod view;
pub mod watch;
