//! Connector `offloading`: the prefill engine keeps blocks under an id, the decode engine pulls them by it.
//!
//! Both legs run at once: blocks that are there before the decode engine asks wait for it. Source: llm-d-router
//! `pkg/sidecar/proxy/connector_p2p.go`; vLLM `OffloadingConnector`. Run with simulated engines only.

use bytes::Bytes;
use llmd_openai::{Edit, EditError, edit};
use serde_json::json;
use uuid::Uuid;

use super::peers::Peers;
use super::{PARAMS, Pair};
use crate::api::Api;
use crate::hosts;

/// Both legs; the prefill engine pulls from `source` what that one has already.
pub(super) fn pair(
    peers: &Peers,
    body: &[Bytes],
    api: Api,
    host: &str,
    source: Option<&str>,
) -> Result<Pair, EditError> {
    let id = Uuid::new_v4().to_string();
    let mut keeps = json!({ "remote_decoder": { "kv_request_id": id } });
    if let Some(source) = peers.source_for(host, source) {
        keeps["remote_kv_source"] = source;
    }
    let keeps = keeps.to_string();
    let edits: Vec<Edit<'_>> = api.one_token().chain([Edit::set(&[PARAMS], &keeps)]).collect();
    let pulls = json!({
        "remote_prefiller": {
            "kv_request_id": id,
            "remote_host": hosts::bare(host),
            "remote_port": peers.tier_of(host),
        }
    });
    Ok(Pair {
        prefill: edit(body, &edits)?,
        decode: edit(body, &[Edit::set(&[PARAMS], &pulls.to_string())])?,
        prefill_rank: None,
    })
}
