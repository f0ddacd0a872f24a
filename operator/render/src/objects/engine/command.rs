//! Command lines of the engines.

mod sglang;
mod simulator;
mod vllm;

use llmd_crds::EngineType;

use super::{offload, ranks};
use crate::validated::{ModelSource, ValidatedDeployment, ValidatedModel, ValidatedPool};

/// Command (`None` keeps the image's entrypoint) and arguments.
pub(super) fn line(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    model_directory: &str,
) -> (Option<Vec<String>>, Vec<String>) {
    let mut args = match pool.engine.kind {
        EngineType::Vllm => vllm::args(deployment, pool, model_directory),
        EngineType::Sglang => sglang::args(deployment, pool, model_directory),
        EngineType::Simulator => simulator::args(deployment, pool),
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
        EngineType::Vllm => {
            let script = if pool.parallelism.data > 1 {
                Some(ranks::script(pool))
            } else {
                offload::script(&deployment.kv, pool)
            };
            Some(match script {
                // the last word is the shell's own name, `$0`
                Some(script) => ["/bin/bash", "-c", &script, "vllm"].map(str::to_owned).into(),
                None => ["vllm", "serve"].map(str::to_owned).into(),
            })
        }
        EngineType::Sglang => Some(
            ["python3", "-m", "sglang.launch_server"]
                .map(str::to_owned)
                .into(),
        ),
        EngineType::Simulator => None,
    };
    (command, args)
}

/// What the engine reads the weights from, and their revision.
fn weights(model: &ValidatedModel, model_directory: &str) -> (Option<String>, Option<String>) {
    match &model.source {
        ModelSource::Hub { id, revision } => (Some(id.clone()), revision.clone()),
        ModelSource::Claim { path, .. } => (Some(format!("{model_directory}/{path}")), None),
        ModelSource::Nothing => (None, None),
    }
}
