//! `/v1/models`: the model under each of its names, then the adapters.

use serde_json::{Value, json};

use crate::args::SimConfig;

/// The body; `created` in Unix seconds.
pub fn list(config: &SimConfig, created: u64) -> Vec<u8> {
    let names = config
        .models
        .iter()
        .map(|name| entry(name, &config.root, None, Some(config.max_model_len), created));
    let parent = config.models.first().map(|name| &**name);
    let adapters = config
        .adapters
        .iter()
        .map(|adapter| entry(&adapter.name, &adapter.path, parent, None, created));
    let data: Vec<Value> = names.chain(adapters).collect();
    json!({"object": "list", "data": data}).to_string().into_bytes()
}

fn entry(id: &str, root: &str, parent: Option<&str>, max_model_len: Option<usize>, created: u64) -> Value {
    json!({
        "id": id, "object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": parent,
        "max_model_len": max_model_len,
        "permission": [{
            "id": format!("modelperm-{id}"), "object": "model_permission", "created": created, "allow_create_engine": false,
            "allow_sampling": true, "allow_logprobs": false, "allow_search_indices": false, "allow_view": true,
            "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false,
        }],
    })
}
