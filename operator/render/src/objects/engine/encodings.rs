//! Encodings of images, videos and audio that engines take from others.
//! Source: llm-d guides v0.8, `multimodal-serving/e-disaggregation`.

use k8s_openapi::api::core::v1::EnvVar;
use llmd_crds::Role;

use super::super::pod::{env, env_field};
use crate::names;
use crate::validated::{ValidatedDeployment, ValidatedPool};

/// Shared memory of engines that hold encodings.
pub(super) const SHARED_MEMORY: &str = "90Gi";

/// vLLM's `--ec-transfer-config`.
pub(super) fn config(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Option<&'static str> {
    if pool.role == Role::Encode {
        // the guide's number of blocks; the engine's own of 100,000 is too small for videos
        return Some(
            r#"{"ec_connector":"ECCPUConnector","ec_role":"ec_producer","ec_connector_extra_config":{"num_ec_blocks":1000000}}"#,
        );
    }
    let takes = deployment.takes_encodings(pool);
    takes.then_some(r#"{"ec_connector":"ECCPUConnector","ec_role":"ec_consumer"}"#)
}

/// Where the others ask for encodings.
pub(super) fn variables(pool: &ValidatedPool) -> Vec<EnvVar> {
    if pool.role != Role::Encode {
        return Vec::new();
    }
    vec![
        env_field("VLLM_EC_SIDE_CHANNEL_HOST", "status.podIP"),
        env("VLLM_EC_SIDE_CHANNEL_PORT", &names::ENCODINGS_PORT.to_string()),
    ]
}
