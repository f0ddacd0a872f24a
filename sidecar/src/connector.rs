//! How KV blocks move from a prefill engine to the decode engine.

pub(crate) mod mooncake;
pub(crate) mod moriio;
pub(crate) mod nixlv2;
pub(crate) mod offloading;
pub(crate) mod peers;
pub(crate) mod sglang;
pub(crate) mod shared_storage;

use bytes::Bytes;
use llmd_openai::EditError;

use crate::api::Api;
use mooncake::Mooncake;
use moriio::Moriio;
use peers::Peers;

/// Member of both legs that says which blocks are meant, and where they are.
pub(crate) const PARAMS: &str = "kv_transfer_params";

/// The connector of this sidecar.
#[derive(Debug)]
pub(crate) enum Connector {
    /// One leg after the other; the prefill engine says where the blocks are.
    NixlV2,
    /// The prefill engine writes into the decode engine's memory.
    Moriio(Box<Moriio>),
    /// Both legs at once; they meet at this port of the prefill engine.
    Sglang {
        /// Port of the prefill engine's bootstrap server.
        bootstrap_port: u16,
    },
    /// Both legs at once; the prefill engine's bootstrap server names its ranks.
    Mooncake(Box<Mooncake>),
    /// Both legs at once; the decode engine pulls from the prefill engine's tier of offloaded blocks.
    Offloading,
    /// One leg after the other; engines share a storage.
    SharedStorage,
}

/// The bodies of two legs that run at the same time.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) prefill: Vec<Bytes>,
    pub(crate) decode: Vec<Bytes>,
    /// Rank of the prefill engine, where there are several.
    pub(crate) prefill_rank: Option<String>,
}

/// Why there are no two legs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PairError {
    /// A fault of the request.
    #[error("the request body cannot be split into a prefill and a decode: {0}")]
    Body(#[from] EditError),
    /// A fault of the prefill engine.
    #[error("{0}")]
    Engine(String),
}

impl Connector {
    /// Name in flags and spans.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NixlV2 | Self::Moriio(_) => "nixlv2",
            Self::Sglang { .. } => "sglang",
            Self::Mooncake(_) => "mooncake",
            Self::Offloading => "offloading",
            Self::SharedStorage => "shared-storage",
        }
    }

    /// Whether both legs run at the same time.
    pub(crate) const fn is_concurrent(&self) -> bool {
        match self {
            Self::NixlV2 | Self::SharedStorage => false,
            Self::Moriio(moriio) => moriio.is_parallel,
            Self::Sglang { .. } | Self::Mooncake(_) | Self::Offloading => true,
        }
    }

    /// Both legs of a request to the prefill engine `host`; `source` has blocks of its prompt already.
    pub(crate) async fn pair(
        &self,
        peers: &Peers,
        body: &[Bytes],
        api: Api,
        host: &str,
        source: Option<&str>,
        request_id: &str,
    ) -> Result<Pair, PairError> {
        match self {
            Self::Sglang { bootstrap_port } => {
                let body = sglang::meeting(body, host, *bootstrap_port, sglang::room())?;
                Ok(Pair {
                    prefill: body.clone(),
                    decode: body,
                    prefill_rank: None,
                })
            }
            Self::Mooncake(mooncake) => mooncake.pair(body, api, host).await,
            Self::Offloading => Ok(offloading::pair(peers, body, api, host, source)?),
            Self::Moriio(moriio) => moriio.pair(peers, body, api, host, source, request_id).await,
            Self::NixlV2 | Self::SharedStorage => {
                Err(PairError::Engine("its legs follow each other".to_owned()))
            }
        }
    }
}
