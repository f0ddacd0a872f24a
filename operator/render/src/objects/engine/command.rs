//! Command lines of the engines.

use llmd_crds::EngineType;

use super::{engine_port, ranks, transfer};
use crate::validated::{ModelSource, ValidatedDeployment, ValidatedPool};

/// Command (`None` keeps the image's entrypoint) and arguments.
pub(super) fn line(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    model_directory: &str,
) -> (Option<Vec<String>>, Vec<String>) {
    let mut args = match pool.engine.kind {
        EngineType::Vllm => vllm(deployment, pool, model_directory),
        EngineType::Simulator => simulator(deployment, pool),
    };
    for (flag, value) in &pool.engine.args {
        args.push(if value.is_empty() {
            format!("--{flag}")
        } else {
            format!("--{flag}={value}")
        });
    }
    args.extend(pool.engine.extra_args.iter().cloned());
    let command = match pool.engine.kind {
        // the last word is the shell's own name, `$0`
        EngineType::Vllm if pool.parallelism.data > 1 => {
            let script = ranks::script(pool);
            Some(["/bin/bash", "-c", &script, "vllm"].map(str::to_owned).into())
        }
        EngineType::Vllm => Some(vec!["vllm".to_owned(), "serve".to_owned()]),
        EngineType::Simulator => None,
    };
    (command, args)
}

fn vllm(deployment: &ValidatedDeployment, pool: &ValidatedPool, model_directory: &str) -> Vec<String> {
    let model = &deployment.model;
    let mut args = Vec::new();
    match &model.source {
        ModelSource::Hub { id, revision } => {
            args.push(id.clone());
            args.extend(revision.iter().map(|revision| format!("--revision={revision}")));
        }
        ModelSource::Claim { path, .. } => args.push(format!("{model_directory}/{path}")),
        ModelSource::Nothing => {}
    }
    args.push(format!("--port={}", engine_port(deployment, pool)));
    // One flag takes all names; vLLM answers with the first.
    args.push("--served-model-name".to_owned());
    args.extend(model.served_names.iter().cloned());
    args.push(format!("--tensor-parallel-size={}", pool.parallelism.tensor));
    args.push(format!("--shutdown-timeout={}", deployment.rollout.drain_seconds));
    if model.trust_remote_code {
        args.push("--trust-remote-code".to_owned());
    }
    args.extend(ranks::args(deployment, pool));
    args.extend(transfer::args(deployment, pool));
    args
}

fn simulator(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<String> {
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
