//! Which image a container runs when the resource names none.

use llmd_crds::EngineType;

use crate::options::RenderOptions;
use crate::validated::{ValidatedDeployment, ValidatedPool};

/// Envoy that the end-to-end tests run.
pub(super) const ENVOY: &str = "docker.io/envoyproxy/envoy:distroless-v1.40.0";

/// The path's table, or our own image of the pinned release.
pub(super) fn engine(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    options: &RenderOptions,
) -> String {
    match pool.engine.kind {
        EngineType::Simulator => options.engine_image("llmd"),
        EngineType::Vllm => options.mirrored(deployment.images.vllm(pool.vendor)),
        EngineType::Sglang => options.mirrored(deployment.images.sglang(pool.vendor)),
    }
}
