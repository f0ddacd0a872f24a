//! `kv_transfer_params` as vLLM's `NixlConnector` reads and answers them.

use serde::{Deserialize, Serialize};

use crate::api::ApiError;

/// What a request asks of the connector; members that other connectors add are not read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// Hold the blocks: another engine decodes.
    #[serde(default)]
    pub do_remote_decode: bool,
    /// Read the blocks of another engine, which has prefilled.
    #[serde(default)]
    pub do_remote_prefill: bool,
    /// Blocks there.
    pub remote_block_ids: Option<Vec<u32>>,
    /// That engine.
    pub remote_engine_id: Option<String>,
    /// Its request.
    pub remote_request_id: Option<String>,
    /// Where its side channel listens.
    pub remote_host: Option<String>,
    /// And on which port.
    pub remote_port: Option<u16>,
    /// Tokens whose KV entries are there; absent means the whole prompt.
    pub remote_num_tokens: Option<usize>,
}

/// Where blocks are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Engine that holds them.
    pub engine: String,
    /// Request they are of.
    pub request: String,
    /// Host of its side channel.
    pub host: String,
    /// Port of its side channel.
    pub port: u16,
    /// Most tokens to read.
    pub tokens: Option<usize>,
    /// Blocks the request names.
    pub blocks: Vec<u32>,
}

impl Asked {
    /// Where the blocks are; every member a read needs must be there.
    pub fn source(&self) -> Result<Source, ApiError> {
        let missing = |member: &str| {
            let message = format!(
                "kv_transfer_params: do_remote_prefill needs {member}, as the prefill engine answered it"
            );
            ApiError::field("kv_transfer_params", message)
        };
        Ok(Source {
            engine: self
                .remote_engine_id
                .clone()
                .ok_or_else(|| missing("remote_engine_id"))?,
            request: self
                .remote_request_id
                .clone()
                .ok_or_else(|| missing("remote_request_id"))?,
            host: self.remote_host.clone().ok_or_else(|| missing("remote_host"))?,
            port: self.remote_port.ok_or_else(|| missing("remote_port"))?,
            tokens: self.remote_num_tokens,
            blocks: self
                .remote_block_ids
                .clone()
                .ok_or_else(|| missing("remote_block_ids"))?,
        })
    }
}

/// What the answer of a prefill tells the decoding engine, in vLLM's order.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// Always true.
    pub do_remote_prefill: bool,
    /// Always false.
    pub do_remote_decode: bool,
    /// Blocks, in order of the prompt.
    pub remote_block_ids: Vec<u32>,
    /// This engine.
    pub remote_engine_id: String,
    /// The request as others name it.
    pub remote_request_id: String,
    /// Where the side channel listens.
    pub remote_host: String,
    /// And on which port.
    pub remote_port: u16,
    /// Shards of this engine: one.
    pub tp_size: u32,
    /// Tokens in the blocks.
    pub remote_num_tokens: usize,
}
