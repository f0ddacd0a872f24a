//! What needs an API server and no nodes: the chart, the verbs, files for GitOps.

mod allowed_engines;
mod chart;
mod dashboard;
mod foreign;
mod gitops;
mod kills;
mod upgrade;
mod verbs;
