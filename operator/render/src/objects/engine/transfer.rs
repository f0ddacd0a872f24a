//! What moves KV blocks between roles: the engine's connector, its side channel, its network devices.
//! Source: llm-d guides v0.8, `pd-disaggregation`.

use k8s_openapi::api::core::v1::{ContainerPort, EnvVar};
use llmd_crds::{EngineType, KvBackend, KvFailurePolicy};
use serde::Serialize;

use super::super::pod::{env, env_field, port};
use crate::names;
use crate::validated::{ValidatedDeployment, ValidatedPool, ValidatedTransfer};

/// Above the 90 s for which a sidecar keeps idle connections; the engine's own 5 s would reset requests.
const KEEP_ALIVE_SECONDS: &str = "120";

/// Flags of block size and connector.
pub(super) fn args(deployment: &ValidatedDeployment) -> Vec<String> {
    let mut args = Vec::new();
    args.extend(
        deployment
            .block_size
            .map(|tokens| format!("--block-size={tokens}")),
    );
    let transfer = deployment.transfer.as_ref();
    args.extend(transfer.map(|transfer| format!("--kv-transfer-config={}", connector(transfer))));
    args
}

/// vLLM's `--kv-transfer-config`; in this order, whatever `serde_json` was built with.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "vLLM's names")]
struct Connector {
    kv_connector: &'static str,
    kv_role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_load_failure_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_connector_extra_config: Option<Extra>,
}

#[derive(Serialize)]
struct Extra {
    backends: [&'static str; 1],
}

fn connector(transfer: &ValidatedTransfer) -> String {
    let config = Connector {
        kv_connector: "NixlConnector",
        kv_role: "kv_both",
        kv_load_failure_policy: transfer.failure_policy.map(|policy| match policy {
            KvFailurePolicy::Fail => "fail",
            KvFailurePolicy::Recompute => "recompute",
        }),
        kv_connector_extra_config: transfer.backend.map(|backend| Extra {
            backends: [match backend {
                KvBackend::Ucx => "UCX",
                KvBackend::Libfabric => "LIBFABRIC",
            }],
        }),
    };
    // strings only: there is nothing that JSON cannot say
    serde_json::to_string(&config).unwrap_or_default()
}

/// Where peers ask for blocks.
pub(super) fn variables(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<EnvVar> {
    if deployment.transfer.is_none() {
        return Vec::new();
    }
    let mut variables = vec![
        env_field("VLLM_NIXL_SIDE_CHANNEL_HOST", "status.podIP"),
        env("VLLM_NIXL_SIDE_CHANNEL_PORT", &names::NIXL_PORT.to_string()),
    ];
    if pool.engine.kind == EngineType::Vllm {
        variables.push(env("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", KEEP_ALIVE_SECONDS));
    }
    variables
}

pub(super) fn ports(deployment: &ValidatedDeployment) -> Option<ContainerPort> {
    deployment
        .transfer
        .as_ref()
        .map(|_| port("nixl", names::NIXL_PORT))
}

/// Network device and how many a pod has.
pub(super) fn devices(deployment: &ValidatedDeployment) -> Option<&(String, i32)> {
    deployment.transfer.as_ref()?.network.as_ref()
}
