//! Images of others, one table. Source: llm-d guides v0.8, `recipes/modelserver/components/images`.

use llmd_crds::{EngineType, Vendor};

use crate::options::RenderOptions;

/// Envoy that the end-to-end tests run.
pub(super) const ENVOY: &str = "docker.io/envoyproxy/envoy:distroless-v1.40.0";

pub(super) fn engine(kind: EngineType, vendor: Vendor, options: &RenderOptions) -> String {
    let image = match (kind, vendor) {
        (EngineType::Simulator, _) => return options.image("llmd"),
        (EngineType::Vllm, Vendor::Nvidia) => "docker.io/vllm/vllm-openai:v0.23.0",
        (EngineType::Vllm, Vendor::Amd) => "ghcr.io/llm-d/llm-d-rocm:v0.7.0",
        (EngineType::Vllm, Vendor::Google) => "docker.io/vllm/vllm-tpu:v0.22.0",
        (EngineType::Vllm, Vendor::Cpu | Vendor::None) => "ghcr.io/llm-d/llm-d-cpu:v0.7.0",
    };
    options.mirrored(image)
}
