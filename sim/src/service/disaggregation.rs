//! The two legs of a disaggregated request: hold blocks for another engine, or read those of one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Failed;
use crate::api::{ApiError, Request};
use crate::args::TransferSettings;
use crate::driver::HeldBlocks;
use crate::engine::{Hold, Import};
use crate::failure::FailureKind;
use crate::metrics::Metrics;
use crate::transfer::params::{Answered, Asked, RemoteDecoder, RemotePrefiller};
use crate::transfer::{Claim, ClaimError, Connector, LoadFailurePolicy};
use crate::transfer::{peer, take};

/// How much longer an injected slow transfer takes.
const SLOW: u32 = 5;

/// What one engine knows about its transfers.
pub(super) struct Disaggregation {
    settings: TransferSettings,
    engine: String,
    /// Port of its side channel.
    port: u16,
    block_size: usize,
    metrics: Arc<Metrics>,
}

/// What becomes of the blocks of one request.
#[derive(Default)]
pub(super) struct Leg {
    /// Blocks that need not be computed here.
    pub(super) import: Option<Import>,
    /// Blocks to keep.
    pub(super) hold: Option<Hold>,
    claim: Option<Claim>,
}

impl Disaggregation {
    pub(super) fn new(
        settings: TransferSettings,
        engine: String,
        port: u16,
        block_size: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            settings,
            engine,
            port,
            block_size,
            metrics,
        }
    }

    /// What a request asks of the connector: by `kv_transfer_params`, or by its room, as SGLang has it. A prefill there
    /// ends with its first token, whatever its cap.
    pub(super) fn asked(&self, request: &mut Request) -> Result<Option<Asked>, Failed> {
        let rooms = self
            .settings
            .config
            .filter(|config| config.connector == Some(Connector::Rooms));
        let Some(config) = rooms else {
            return Ok(request.kv_transfer_params.take());
        };
        let required = |field: &'static str| {
            let message = format!("{field}: an engine with --disaggregation-mode needs it in every request");
            Failed::Api(ApiError::field(field, message))
        };
        let room = request.bootstrap_room.ok_or_else(|| required("bootstrap_room"))?;
        let name = room.to_string();
        let mut asked = Asked::default();
        if config.gives() {
            request.max_tokens = Some(1);
            request.max_completion_tokens = None;
            request.min_tokens = 0;
            asked.remote_decoder = Some(RemoteDecoder { kv_request_id: name });
        } else {
            asked.remote_prefiller = Some(RemotePrefiller {
                kv_request_id: name,
                remote_host: request
                    .bootstrap_host
                    .take()
                    .ok_or_else(|| required("bootstrap_host"))?,
                remote_port: request.bootstrap_port.ok_or_else(|| required("bootstrap_port"))?,
            });
        }
        Ok(Some(asked))
    }

    /// Reads what a request asks of the connector and, for a decode, claims its blocks. `key` is the name under which
    /// others would ask for the blocks of this request.
    pub(super) async fn leg(
        &self,
        asked: Option<&Asked>,
        prompts: usize,
        key: &str,
        failure: Option<FailureKind>,
    ) -> Result<Leg, Failed> {
        let Some(asked) = asked.filter(|asked| asked.gives() || asked.takes()) else {
            return Ok(Leg::default());
        };
        let refused = |message: &str| {
            Failed::Api(ApiError::field(
                "kv_transfer_params",
                format!("kv_transfer_params: {message}"),
            ))
        };
        let Some(config) = self.settings.config.filter(|config| config.connector.is_some()) else {
            return Err(refused(
                "this engine has no KV connector; start it with --kv-transfer-config",
            ));
        };
        if asked.gives() && asked.takes() {
            return Err(refused(
                "a request is either prefilled for another engine or decoded for one",
            ));
        }
        let offloading = asked.remote_decoder.is_some() || asked.remote_prefiller.is_some();
        if offloading != config.is_named() {
            return Err(refused(
                "do_remote_* are members of NixlConnector, remote_decoder and remote_prefiller of OffloadingConnector; \
                 the routing sidecar's --kv-connector must name that of --kv-transfer-config",
            ));
        }
        if prompts != 1 {
            return Err(refused("one prompt can be transferred at a time"));
        }
        if asked.gives() {
            if !config.gives() {
                return Err(refused(
                    "do_remote_decode: kv_role is kv_consumer, this engine holds no blocks",
                ));
            }
            return Ok(Leg {
                hold: Some(Hold {
                    key: asked
                        .remote_decoder
                        .as_ref()
                        .map_or(key, |decoder| &decoder.kv_request_id)
                        .into(),
                    lease: config.lease,
                }),
                ..Leg::default()
            });
        }
        if !config.takes() {
            return Err(refused(
                "do_remote_prefill: kv_role is kv_producer, this engine reads no blocks",
            ));
        }
        let source = match asked.remote_prefiller.clone() {
            Some(prefiller) => prefiller.into(),
            None => asked.source()?,
        };
        let claimed = take::claim(&source, self.block_size, self.settings.revision.as_deref()).await;
        match claimed {
            Ok(claim) if failure != Some(FailureKind::KvTransfer) => {
                let factor = if failure == Some(FailureKind::SlowKvTransfer) {
                    SLOW
                } else {
                    1
                };
                Ok(Leg {
                    import: Some(Import {
                        tokens: claim.tokens,
                        wait: self.settings.time.of(claim.tokens) * factor,
                    }),
                    claim: Some(claim),
                    hold: None,
                })
            }
            Ok(_) => self.without_blocks(config.policy, "injected failure: the KV transfer broke"),
            Err(error @ ClaimError::Revision { .. }) => {
                self.metrics.revision_mismatch();
                self.without_blocks(LoadFailurePolicy::Fail, &error.to_string())
            }
            Err(error) => self.without_blocks(config.policy, &error.to_string()),
        }
    }

    /// Blocks of a prompt that the engine which the request names has in its cache, for a leg that reads no others. What
    /// does not come is computed here: nothing depends on it.
    pub(super) async fn pull(&self, leg: &mut Leg, asked: Option<&Asked>, hashes: impl FnOnce() -> Vec<u64>) {
        let Some(source) = asked.and_then(|asked| asked.remote_kv_source.as_ref()) else {
            return;
        };
        let has_tier = self
            .settings
            .config
            .is_some_and(|config| config.connector == Some(Connector::Offloading));
        if !has_tier || leg.import.is_some() {
            return;
        }
        match peer::cached(source, &hashes()).await {
            Ok(0) => {}
            Ok(blocks) => {
                let tokens = blocks * self.block_size;
                let wait = self.settings.time.of(tokens);
                leg.import = Some(Import { tokens, wait });
            }
            Err(error) => {
                self.metrics.transfer_failed();
                tracing::warn!(%error, host = source.remote_host, "a peer cannot be asked: the prompt is computed here");
            }
        }
    }

    /// Blocks that do not come: the end of the request, or a prefill here.
    fn without_blocks(&self, policy: LoadFailurePolicy, problem: &str) -> Result<Leg, Failed> {
        self.metrics.transfer_failed();
        match policy {
            LoadFailurePolicy::Recompute => {
                tracing::warn!(problem, "the prompt is computed here");
                Ok(Leg::default())
            }
            LoadFailurePolicy::Fail => Err(Failed::Api(ApiError::new(500, "InternalServerError", problem))),
        }
    }

    /// Follows the claim of a leg: the sender is for the engine, which says when the blocks have been read.
    pub(super) fn follow(&self, leg: &mut Leg) -> Option<oneshot::Sender<()>> {
        let claim = leg.claim.take()?;
        let took = leg.import.map_or(Duration::ZERO, |import| import.wait);
        let (read, waits) = oneshot::channel();
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            if claim.keep(waits).await {
                metrics.transferred(took);
            }
        });
        Some(read)
    }

    /// What the answer of a prefill says about the blocks it left; the readers of the offloading connector know
    /// beforehand.
    pub(super) fn answered(&self, held: &HeldBlocks, key: &str) -> Option<Answered> {
        let config = self.settings.config?;
        (config.connector == Some(Connector::Nixl)).then(|| Answered {
            do_remote_prefill: true,
            do_remote_decode: false,
            remote_block_ids: [held.blocks.clone()],
            remote_engine_id: self.engine.clone(),
            remote_request_id: key.to_owned(),
            remote_host: self.settings.host.clone(),
            remote_port: self.port,
            tp_size: 1,
            remote_num_tokens: held.tokens,
        })
    }
}
