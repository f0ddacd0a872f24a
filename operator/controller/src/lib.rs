//! The operator: watches `LLMDeployment`s and makes the cluster look like what `llmd-render` says.

pub mod rbac;
