//! `llmd sim`.

use super::super::{engine_port, ranks, transfer};
use crate::validated::{ValidatedDeployment, ValidatedPool};

pub(super) fn args(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<String> {
    let model = &deployment.model;
    let mut args = vec![
        "sim".to_owned(),
        format!("--model={}", model.name()),
        "--host=0.0.0.0".to_owned(),
        format!("--port={}", engine_port(deployment, pool)),
        format!("--drain-timeout={}s", deployment.rollout.drain_seconds),
    ];
    if model.served_names.len() > 1 {
        args.push("--served-model-name".to_owned());
        args.extend(model.served_names.iter().cloned());
    }
    args.extend(ranks::args(deployment, pool));
    args.extend(transfer::args(deployment, pool));
    args
}
