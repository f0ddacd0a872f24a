//! `sglang.launch_server`.
//! Source: llm-d guides v0.8, `optimized-baseline`, `pd-disaggregation` and `tiered-prefix-cache` for SGLang.

use llmd_crds::Role;

use super::super::{engine_port, stages};
use super::weights;
use crate::names;
use crate::validated::{ValidatedDeployment, ValidatedPool};

const GIGABYTE: i64 = 1_000_000_000;

pub(super) fn args(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    model_directory: &str,
) -> Vec<String> {
    let model = &deployment.model;
    let (weights, revision) = weights(model, model_directory);
    let mut args: Vec<String> = Vec::new();
    args.extend(weights.map(|weights| format!("--model-path={weights}")));
    args.extend(revision.map(|revision| format!("--revision={revision}")));
    args.push("--host=0.0.0.0".to_owned());
    args.push(format!("--port={}", engine_port(deployment, pool)));
    args.push(format!("--served-model-name={}", model.name()));
    args.push("--enable-metrics".to_owned());
    args.push(format!("--tensor-parallel-size={}", pool.parallelism.tensor));
    args.extend(stages::sglang(pool));
    if pool.parallelism.expert {
        args.push(format!("--ep-size={}", pool.parallelism.tensor));
    }
    if model.trust_remote_code {
        args.push("--trust-remote-code".to_owned());
    }
    args.extend(
        deployment
            .kv
            .block_size
            .map(|tokens| format!("--page-size={tokens}")),
    );
    args.extend(role(deployment, pool));
    args.extend(cache(deployment, pool));
    args
}

/// What the engine does of a request.
fn role(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<String> {
    let mode = match pool.role {
        Role::Prefill => "prefill",
        Role::Decode if deployment.kv.transfer.is_some() => "decode",
        Role::Decode | Role::Both | Role::Encode => return Vec::new(),
    };
    let mut args = vec![
        format!("--disaggregation-mode={mode}"),
        "--disaggregation-transfer-backend=nixl".to_owned(),
    ];
    if pool.role == Role::Prefill {
        args.push(format!(
            "--disaggregation-bootstrap-port={}",
            names::BOOTSTRAP_PORT
        ));
    }
    args
}

/// Memory below the accelerators: SGLang's hierarchical cache. It counts per accelerator, the resource per engine.
fn cache(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<String> {
    let Some(offload) = &deployment.kv.offload else {
        return Vec::new();
    };
    let each = offload.cpu_bytes / i64::from(pool.parallelism.tensor.max(1)) / GIGABYTE;
    vec![
        "--enable-hierarchical-cache".to_owned(),
        format!("--hicache-size={}", each.max(1)),
        "--hicache-write-policy=write_through".to_owned(),
        "--hicache-io-backend=kernel".to_owned(),
    ]
}
