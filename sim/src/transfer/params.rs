//! `kv_transfer_params` as vLLM's `NixlConnector` reads and answers them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::ApiError;

/// Time that a decode waits for its prefill where both begin at once.
const PREFILL: Duration = Duration::from_secs(120);

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
    pub remote_block_ids: Option<BlockIds>,
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
    /// Offloading connector: keep the blocks under this name.
    pub remote_decoder: Option<RemoteDecoder>,
    /// Offloading connector: read the blocks of that name, when they are there.
    pub remote_prefiller: Option<RemotePrefiller>,
    /// Offloading connector: read the blocks of the prompt that this engine has.
    pub remote_kv_source: Option<RemotePrefiller>,
}

/// Blocks by KV cache group, as vLLM has them since it moves several groups, or in one list, as before.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum BlockIds {
    /// By group.
    Groups(Vec<Vec<u32>>),
    /// Of the only group.
    One(Vec<u32>),
}

impl BlockIds {
    fn of_all_groups(self) -> Vec<u32> {
        match self {
            Self::Groups(groups) => groups.into_iter().flatten().collect(),
            Self::One(blocks) => blocks,
        }
    }
}

/// Whom the offloading connector keeps blocks for.
#[derive(Clone, Debug, Deserialize)]
pub struct RemoteDecoder {
    /// Name that both legs have.
    pub kv_request_id: String,
}

/// Where the offloading connector reads blocks. Those of a source have no name of their own.
#[derive(Clone, Debug, Deserialize)]
pub struct RemotePrefiller {
    /// Name that both legs have.
    pub kv_request_id: String,
    /// Host of the prefilling engine.
    pub remote_host: String,
    /// Port of its tier of peers.
    pub remote_port: u16,
}

/// Where blocks are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Engine that holds them; `None` takes whoever listens there.
    pub engine: Option<String>,
    /// Request they are of.
    pub request: String,
    /// Host of its side channel.
    pub host: String,
    /// Port of its side channel.
    pub port: u16,
    /// Most tokens to read.
    pub tokens: Option<usize>,
    /// Blocks the request names; `None` takes all.
    pub blocks: Option<Vec<u32>>,
    /// How long to wait for a prefill that is still under way.
    pub wait: Duration,
}

impl From<RemotePrefiller> for Source {
    fn from(prefiller: RemotePrefiller) -> Self {
        Self {
            engine: None,
            request: prefiller.kv_request_id,
            host: prefiller.remote_host,
            port: prefiller.remote_port,
            tokens: None,
            blocks: None,
            wait: PREFILL,
        }
    }
}

impl Asked {
    /// Whether another engine is to decode.
    pub fn gives(&self) -> bool {
        self.do_remote_decode || self.remote_decoder.is_some()
    }

    /// Whether another engine has prefilled, or does.
    pub fn takes(&self) -> bool {
        self.do_remote_prefill || self.remote_prefiller.is_some()
    }

    /// Where the blocks of a NIXL transfer are; every member a read needs must be there.
    pub fn source(&self) -> Result<Source, ApiError> {
        let missing = |member: &str| {
            let message = format!(
                "kv_transfer_params: do_remote_prefill needs {member}, as the prefill engine answered it"
            );
            ApiError::field("kv_transfer_params", message)
        };
        Ok(Source {
            engine: Some(
                self.remote_engine_id
                    .clone()
                    .ok_or_else(|| missing("remote_engine_id"))?,
            ),
            request: self
                .remote_request_id
                .clone()
                .ok_or_else(|| missing("remote_request_id"))?,
            host: self.remote_host.clone().ok_or_else(|| missing("remote_host"))?,
            port: self.remote_port.ok_or_else(|| missing("remote_port"))?,
            tokens: self.remote_num_tokens,
            blocks: Some(
                self.remote_block_ids
                    .clone()
                    .ok_or_else(|| missing("remote_block_ids"))?
                    .of_all_groups(),
            ),
            wait: Duration::ZERO,
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
    /// Blocks, in order of the prompt, by KV cache group: there is one.
    pub remote_block_ids: [Vec<u32>; 1],
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
