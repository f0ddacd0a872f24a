//! `vllm serve`.

use super::super::{engine_port, ranks, stages, transfer};
use super::weights;
use crate::validated::{ValidatedDeployment, ValidatedPool};

pub(super) fn args(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    model_directory: &str,
) -> Vec<String> {
    let model = &deployment.model;
    let (weights, revision) = weights(model, model_directory);
    let mut args: Vec<String> = weights.into_iter().collect();
    args.extend(revision.map(|revision| format!("--revision={revision}")));
    args.push(format!("--port={}", engine_port(deployment, pool)));
    // One flag takes all names; vLLM answers with the first.
    args.push("--served-model-name".to_owned());
    args.extend(model.served_names.iter().cloned());
    args.push(format!("--tensor-parallel-size={}", pool.parallelism.tensor));
    args.extend(stages::vllm(pool));
    args.push(format!("--shutdown-timeout={}", deployment.rollout.drain_seconds));
    if model.trust_remote_code {
        args.push("--trust-remote-code".to_owned());
    }
    args.extend(ranks::args(deployment, pool));
    args.extend(transfer::args(deployment, pool));
    args
}
