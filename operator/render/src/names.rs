//! Labels, ports and names that other programs select on.
//! Source: llm-d guides v0.8 and llm-d-router charts.

/// Deployment that an object belongs to.
pub(crate) const DEPLOYMENT: &str = "llmd.dev/deployment";
/// Pool that a pod belongs to.
pub(crate) const POOL: &str = "llmd.dev/pool";
/// Pods that serve a model.
pub(crate) const SERVING: &str = "llm-d.ai/inference-serving";
/// Well-lit path, under the guides' key.
pub(crate) const GUIDE: &str = "llm-d.ai/guide";
/// Short model name.
pub(crate) const MODEL: &str = "llm-d.ai/model";
/// Role of an engine.
pub(crate) const ROLE: &str = "llm-d.ai/role";
/// `gpu`, `cpu`, `tpu`.
pub(crate) const ACCELERATOR_VARIANT: &str = "llm-d.ai/accelerator-variant";
/// `nvidia`, `amd`, `google`.
pub(crate) const ACCELERATOR_VENDOR: &str = "llm-d.ai/accelerator-vendor";
/// Whose metric names the engine uses.
pub(crate) const ENGINE_TYPE: &str = "llm-d.ai/engine-type";
/// Path with its version, on the objects it shaped.
pub(crate) const PATH_VERSION: &str = "llmd.dev/path-version";
/// Digest of what engines of all roles run: KV blocks move between equal ones only.
pub(crate) const REVISION: &str = "llmd.dev/revision";
/// Digest of the files that a pod reads at its start.
pub(crate) const CONFIG_HASH: &str = "llmd.dev/config-hash";

/// Engine, HTTP.
pub(crate) const ENGINE_PORT: i32 = 8000;
/// Most data-parallel ranks of a pod with ports of their own: an InferencePool has no more.
pub(crate) const MOST_RANKS: i32 = 8;
/// Engine behind a routing sidecar, HTTP.
pub(crate) const INNER_ENGINE_PORT: i32 = 8200;
/// Engine, NIXL's side channel: where its peers ask for the addresses of KV blocks. Nobody is asked who they are.
pub(crate) const NIXL_PORT: i32 = 5600;
/// SGLang prefill engine, where decode engines meet it.
pub(crate) const BOOTSTRAP_PORT: i32 = 8998;
/// Engine, memory of KV blocks that other engines read.
pub(crate) const PEERS_PORT: i32 = 7777;
/// Encode engine, side channel of encodings.
pub(crate) const ENCODINGS_PORT: i32 = 5610;
/// Endpoint Picker, ext-proc.
pub(crate) const EXT_PROC_PORT: i32 = 9002;
/// Endpoint Picker, gRPC health.
pub(crate) const HEALTH_PORT: i32 = 9003;
/// Endpoint Picker, metrics and debug pages.
pub(crate) const METRICS_PORT: i32 = 9090;
/// Proxy, for clients.
pub(crate) const PROXY_PORT: i32 = 8081;
/// Envoy's administration, on loopback.
pub(crate) const PROXY_ADMIN_PORT: i32 = 19000;
/// Envoy, readiness and statistics.
pub(crate) const PROXY_METRICS_PORT: i32 = 19001;
/// Service, for clients.
pub(crate) const SERVICE_PORT: i32 = 80;

/// File name of the Endpoint Picker's configuration (the chart's).
pub(crate) const EPP_CONFIG_FILE: &str = "default-plugins.yaml";

/// A model name as a label value: last segment, allowed characters, at most 63.
pub(crate) fn label_value(model: &str) -> String {
    let short = model.rsplit('/').next().unwrap_or(model);
    let mut value: String = short
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    while value.ends_with(|c: char| !c.is_ascii_alphanumeric()) {
        value.pop();
    }
    value
        .trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::label_value;

    #[test]
    fn model_names_become_label_values() {
        assert_eq!(label_value("Qwen/Qwen3-32B"), "Qwen3-32B");
        assert_eq!(label_value("a:b@c-"), "a-b-c");
        assert_eq!(label_value(&"x".repeat(80)).len(), 63);
    }
}
