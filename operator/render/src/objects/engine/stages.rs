//! Parts of the layers one after the other, in one pod or over several, whose first takes the requests.
//! Sources: vLLM `--pipeline-parallel-size`, `--nnodes`; SGLang `--pp-size`, `--nnodes`.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use llmd_crds::EngineType;

use crate::names;
use crate::validated::ValidatedPool;

/// Where the pods of an SGLang engine find each other.
const SGLANG_PORT: i32 = 5000;

/// Flags of vLLM; address and number of the pod are set by the controller of groups, expanded by the kubelet.
pub(super) fn vllm(pool: &ValidatedPool) -> Vec<String> {
    let mut args = Vec::new();
    if pool.parallelism.pipeline > 1 {
        args.push(format!("--pipeline-parallel-size={}", pool.parallelism.pipeline));
    }
    if pool.parallelism.stages() > 1 {
        args.push(format!("--nnodes={}", pool.parallelism.stages()));
        args.push("--node-rank=$(LWS_WORKER_INDEX)".to_owned());
        args.push("--master-addr=$(LWS_LEADER_ADDRESS)".to_owned());
    }
    args
}

/// Flags of SGLang.
pub(super) fn sglang(pool: &ValidatedPool) -> Vec<String> {
    let mut args = Vec::new();
    if pool.parallelism.pipeline > 1 {
        args.push(format!("--pp-size={}", pool.parallelism.pipeline));
    }
    if pool.parallelism.stages() > 1 {
        args.push(format!("--nnodes={}", pool.parallelism.stages()));
        args.push("--node-rank=$(LWS_WORKER_INDEX)".to_owned());
        args.push(format!("--dist-init-addr=$(LWS_LEADER_ADDRESS):{SGLANG_PORT}"));
    }
    args
}

/// The pods after the first: they take no requests, so routers must not see them and nobody asks them by HTTP. One
/// that dies takes its group with it.
pub(super) fn worker(mut template: PodTemplateSpec, kind: EngineType) -> PodTemplateSpec {
    if let Some(labels) = template
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.labels.as_mut())
    {
        labels.remove(names::SERVING);
    }
    let spec = template.spec.get_or_insert_default();
    for container in &mut spec.containers {
        container.ports = None;
        container.startup_probe = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        if kind == EngineType::Vllm {
            container
                .args
                .get_or_insert_default()
                .push("--headless".to_owned());
        }
    }
    template
}
