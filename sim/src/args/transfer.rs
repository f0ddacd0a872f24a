//! Flags of KV transfer between engines.

use std::time::Duration;

use super::{ConfigError, duration};
use crate::transfer::{KvTransferConfig, Role, TransferTime};

/// Flags that say how KV blocks come from other engines.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    /// vLLM's KV transfer configuration as JSON: `kv_connector`, `kv_role`, `kv_load_failure_policy`,
    /// `kv_connector_extra_config`.
    #[arg(long)]
    pub kv_transfer_config: Option<String>,
    /// SGLang's side of a transfer: every request names the room where its prefill and its decode meet.
    #[arg(long, value_enum, conflicts_with = "kv_transfer_config")]
    pub disaggregation_mode: Option<DisaggregationMode>,
    /// Port of SGLang's bootstrap server, on which decode engines ask for KV blocks; 0 takes a free one.
    #[arg(long, default_value_t = 8998, requires = "disaggregation_mode")]
    pub disaggregation_bootstrap_port: u16,
    /// Time that KV blocks take from another engine, whatever their number.
    #[arg(long, value_parser = duration)]
    pub kv_cache_transfer_latency: Option<Duration>,
    /// Time that KV blocks take from another engine, per token.
    #[arg(long, value_parser = duration)]
    pub kv_cache_transfer_time_per_token: Option<Duration>,
    /// Host on which other engines ask for KV blocks, told to them as it is.
    #[arg(long, env = "VLLM_NIXL_SIDE_CHANNEL_HOST", default_value = "localhost")]
    pub nixl_side_channel_host: String,
    /// Port on which other engines ask for KV blocks; a data-parallel rank adds its number; 0 takes a free one.
    #[arg(long, env = "VLLM_NIXL_SIDE_CHANNEL_PORT", default_value_t = 5600)]
    pub nixl_side_channel_port: u16,
    /// Seconds for which KV blocks stay unless another engine asks; `kv_lease_duration` of the transfer
    /// configuration wins, 30 without either.
    #[arg(long, env = "VLLM_NIXL_ABORT_REQUEST_TIMEOUT")]
    pub nixl_abort_request_timeout: Option<f64>,
    /// Name of what this engine was rolled out with: it neither gives KV blocks to engines of another name nor takes
    /// theirs.
    #[arg(long, env = "LLMD_SIM_REVISION")]
    pub engine_revision: Option<String>,
}

/// SGLang's sides of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DisaggregationMode {
    /// Computes prompts.
    Prefill,
    /// Computes answers.
    Decode,
}

/// Checked flags of KV transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferSettings {
    /// The configuration, if there is one.
    pub config: Option<KvTransferConfig>,
    /// Time that blocks take.
    pub time: TransferTime,
    /// Host of the side channel.
    pub host: String,
    /// Port of the side channel of rank 0.
    pub port: u16,
    /// Revision that pairs must share.
    pub revision: Option<String>,
}

impl TransferArgs {
    pub(super) fn settings(self) -> Result<TransferSettings, ConfigError> {
        let config = match &self.kv_transfer_config {
            Some(json) => {
                let parsed = KvTransferConfig::parse(json, self.nixl_abort_request_timeout);
                Some(parsed.map_err(|problem| ConfigError::Json {
                    flag: "kv-transfer-config",
                    problem,
                })?)
            }
            None => self.disaggregation_mode.map(|mode| {
                let role = match mode {
                    DisaggregationMode::Prefill => Role::Producer,
                    DisaggregationMode::Decode => Role::Consumer,
                };
                KvTransferConfig::rooms(role, self.disaggregation_bootstrap_port)
            }),
        };
        if self.kv_cache_transfer_latency.is_some() && self.kv_cache_transfer_time_per_token.is_some() {
            return Err(ConfigError::Conflict {
                flag: "kv-cache-transfer-latency",
                other: "kv-cache-transfer-time-per-token",
                fix: "the first fixes the time, the second lets it grow with the prompt: choose one",
            });
        }
        let takes = config.is_some_and(|config| config.takes());
        for (flag, given) in [
            ("kv-cache-transfer-latency", self.kv_cache_transfer_latency),
            (
                "kv-cache-transfer-time-per-token",
                self.kv_cache_transfer_time_per_token,
            ),
        ] {
            if given.is_some() && !takes {
                return Err(ConfigError::Needs {
                    flag,
                    needs: "kv-transfer-config",
                    fix: "give one whose role takes KV blocks of other engines, or leave it out",
                });
            }
        }
        Ok(TransferSettings {
            config,
            time: TransferTime {
                fixed: self.kv_cache_transfer_latency.unwrap_or_default(),
                per_token: self.kv_cache_transfer_time_per_token.unwrap_or_default(),
            },
            // The host of a room is the one of the request, whatever this engine calls itself.
            host: match self.disaggregation_mode {
                Some(_) => "0.0.0.0".to_owned(),
                None => self.nixl_side_channel_host,
            },
            port: config
                .and_then(|config| config.peers)
                .unwrap_or(self.nixl_side_channel_port),
            revision: self.engine_revision.filter(|revision| !revision.is_empty()),
        })
    }
}
