//! The one binary: verbs and wiring, nothing else.
//!
//! ```text
//!  argv[0] or first argument ─┬─ epp ─────────▶ llmd-epp     (Go-style flags, passed on untouched)
//!                             ├─ sidecar ─────▶ llmd-sidecar (likewise)
//!                             ├─ sim ─────────▶ llmd-sim
//!                             ├─ up ──────────▶ llmd-local   (runs this binary again for each role)
//!                             ├─ render, validate, paths ─▶ llmd-render
//!                             ├─ status, diff, preflight, bundle, crds apply ─▶ a cluster, over its API
//!                             ├─ wva plan ────▶ llmd-wva-plan
//!                             └─ crds, rbac ──▶ llmd-crds, llmd-operator
//! ```
//!
//! Exit codes: 0 done, 1 a difference or not ready, 2 wrong usage or invalid input, 3 a runtime error.

mod cli;
mod cluster;
mod crds;
mod documents;
mod exit;
mod kv_events;
mod output;
mod paths;
mod rbac;
mod render;
mod role;
mod serve;
mod shell;
mod up;
mod validate;
mod version;
mod wva;

use std::process::ExitCode;

fn main() -> ExitCode {
    // one TLS provider for the process, before anything can ask for one
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return exit::Failure::runtime("another TLS provider is installed already").report();
    }
    llmd_local::parent::exit_with_parent_if_asked();
    match role::dispatch(std::env::args_os().collect()) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
