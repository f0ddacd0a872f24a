//! What moves KV blocks between roles: the engine's connector, its side channel, its network devices.
//! Source: llm-d guides v0.8, `pd-disaggregation`.

use k8s_openapi::api::core::v1::{ContainerPort, EnvVar};
use llmd_crds::{EngineType, Role};

use super::super::pod::{env, env_field, port};
use super::{connector, encodings};
use crate::names;
use crate::validated::{Devices, ValidatedDeployment, ValidatedPool};

/// Above the 90 s for which a sidecar keeps idle connections; the engine's own 5 s would reset requests.
const KEEP_ALIVE_SECONDS: &str = "120";

/// Flags of block size and connectors.
pub(super) fn args(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<String> {
    let kv = &deployment.kv;
    let mut args = Vec::new();
    args.extend(kv.block_size.map(|tokens| format!("--block-size={tokens}")));
    args.extend(connector::config(kv, pool).map(|config| format!("--kv-transfer-config={config}")));
    args.extend(encodings::config(deployment, pool).map(|config| format!("--ec-transfer-config={config}")));
    args
}

/// Where peers ask for blocks and encodings.
pub(super) fn variables(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<EnvVar> {
    let mut variables = Vec::new();
    if pool.engine.kind == EngineType::Sglang {
        return sglang(deployment);
    }
    if has_blocks(deployment, pool) {
        variables.push(env_field("VLLM_NIXL_SIDE_CHANNEL_HOST", "status.podIP"));
        variables.push(env("VLLM_NIXL_SIDE_CHANNEL_PORT", &names::NIXL_PORT.to_string()));
    }
    variables.extend(encodings::variables(pool));
    if deployment.is_disaggregated() {
        variables.push(match pool.engine.kind {
            EngineType::Vllm | EngineType::Sglang => env("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", KEEP_ALIVE_SECONDS),
            // it refuses blocks of another revision, as real engines would if they knew it
            EngineType::Simulator => {
                let label = format!("metadata.labels['{}']", names::REVISION);
                env_field("LLMD_SIM_REVISION", &label)
            }
        });
    }
    variables
}

/// What SGLang calls the same.
fn sglang(deployment: &ValidatedDeployment) -> Vec<EnvVar> {
    let Some(transfer) = &deployment.kv.transfer else {
        return Vec::new();
    };
    let mut variables = vec![env("SGLANG_TIMEOUT_KEEP_ALIVE", KEEP_ALIVE_SECONDS)];
    variables.extend(transfer.backend.map(|backend| {
        let name = connector::backend(backend);
        env("SGLANG_DISAGGREGATION_NIXL_BACKEND", name)
    }));
    variables
}

/// Whether engines of `pool` give or take KV blocks.
fn has_blocks(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> bool {
    deployment.kv.transfer.is_some() && pool.role != Role::Encode
}

pub(super) fn ports(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<ContainerPort> {
    let mut ports = Vec::new();
    ports.extend(match pool.engine.kind {
        EngineType::Sglang => (pool.role == Role::Prefill).then(|| port("bootstrap", names::BOOTSTRAP_PORT)),
        EngineType::Vllm | EngineType::Simulator => {
            has_blocks(deployment, pool).then(|| port("nixl", names::NIXL_PORT))
        }
    });
    let gives = deployment.kv.shares_memory() && pool.role != Role::Encode;
    ports.extend(gives.then(|| port("peers", names::PEERS_PORT)));
    ports.extend((pool.role == Role::Encode).then(|| port("ec-nixl", names::ENCODINGS_PORT)));
    ports
}

/// Network devices of a pod.
pub(super) fn devices<'a>(deployment: &'a ValidatedDeployment, pool: &ValidatedPool) -> Option<&'a Devices> {
    let transfer = deployment.kv.transfer.as_ref()?;
    transfer.network.as_ref().filter(|_| pool.role != Role::Encode)
}
