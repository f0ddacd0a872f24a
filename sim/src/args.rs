//! Flags, their checks, and the configuration that follows.

mod encodings;
mod lora;
mod ranks;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{EngineConfig, Latency, Overrides, PrefillLatency, StepModel};
use crate::failure::FailureKind;

pub use encodings::{EncodingArgs, EncodingRole, EncodingSettings};
pub use lora::LoraModule;
pub use ranks::{GroupAddress, Ports, RankArgs, Ranks};
pub use transfer::{DisaggregationMode, TransferArgs, TransferSettings};

/// How answers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The answer is the last user message (or the prompt).
    Echo,
    /// The answer is made of common words, the same for the same seed and prompt.
    Random,
}

/// Flags of `llmd sim`. Durations take `200ms`, `1.5s`, or a bare number of milliseconds.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// Model name to serve.
    #[arg(long)]
    pub model: String,
    /// Names that clients may use for the model; the first one is shown. Default: the model's name.
    #[arg(long, num_args = 1..)]
    pub served_model_name: Vec<String>,
    /// Address to listen on; all interfaces by default, as vLLM does (probes of a pod come from outside).
    #[arg(long, default_value = "0.0.0.0")]
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// How answers are made.
    #[arg(long, value_enum, default_value = "random")]
    pub mode: Mode,
    /// Seed of answers, latency spread and failures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Most requests in one step.
    #[arg(long, default_value_t = 256)]
    pub max_num_seqs: usize,
    /// Most tokens in one step.
    #[arg(long, default_value_t = 2048)]
    pub max_num_batched_tokens: usize,
    /// Most tokens of prompt and answer together.
    #[arg(long, default_value_t = 8192)]
    pub max_model_len: usize,
    /// KV cache size in blocks, one of them reserved as in vLLM.
    #[arg(long, default_value_t = 8192, visible_alias = "num-gpu-blocks-override")]
    pub kv_cache_size: u32,
    /// Tokens per KV block.
    #[arg(long, default_value_t = 16)]
    pub block_size: usize,
    /// Share KV blocks between requests with a common prefix.
    #[arg(
        long, visible_alias = "enable-kvcache", default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub enable_prefix_caching: bool,
    /// Do not share KV blocks.
    #[arg(long)]
    pub no_enable_prefix_caching: bool,

    /// Fixed time from admission to first token, in place of the step model's prefill.
    #[arg(long, value_parser = duration)]
    pub time_to_first_token: Option<Duration>,
    /// Spread of `--time-to-first-token`.
    #[arg(long, value_parser = duration)]
    pub time_to_first_token_std_dev: Option<Duration>,
    /// Fixed time between tokens, in place of the step model's decode.
    #[arg(long, value_parser = duration)]
    pub inter_token_latency: Option<Duration>,
    /// Spread of `--inter-token-latency`.
    #[arg(long, value_parser = duration)]
    pub inter_token_latency_std_dev: Option<Duration>,
    /// Fixed part of a prefill time that grows with the uncached prompt.
    #[arg(long, value_parser = duration)]
    pub prefill_overhead: Option<Duration>,
    /// Prefill time per uncached prompt token.
    #[arg(long, value_parser = duration)]
    pub prefill_time_per_token: Option<Duration>,
    /// Factor (1 or more) on the fixed times when all slots are taken.
    #[arg(long)]
    pub time_factor_under_load: Option<f64>,
    /// Spread of step times of the step model: ± this share (0 to 1).
    #[arg(long, default_value_t = 0.0)]
    pub step_jitter: f64,
    /// Step model: time of any step.
    #[arg(long, value_parser = duration)]
    pub step_base: Option<Duration>,
    /// Step model: time per prompt token.
    #[arg(long, value_parser = duration)]
    pub step_prefill_token: Option<Duration>,
    /// Step model: time per decoding request.
    #[arg(long, value_parser = duration)]
    pub step_decode_sequence: Option<Duration>,

    /// Answer 503 for this long after the start.
    #[arg(long, value_parser = duration, default_value = "0")]
    pub startup_duration: Duration,
    /// Time that streams get to end after a stop signal.
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub drain_timeout: Duration,
    /// Percentage of requests that fail (0 to 100).
    #[arg(long, default_value_t = 0)]
    pub failure_injection_rate: u8,
    /// Ways to fail; default: the kinds that answer with an error.
    #[arg(long, value_enum, num_args = 1.., value_delimiter = ',')]
    pub failure_types: Vec<FailureKind>,

    /// LoRA adapters to offer: `name=path` or JSON `{"name": …, "path": …}`.
    #[arg(long, num_args = 1..)]
    pub lora_modules: Vec<LoraModule>,
    /// Most adapters in one step.
    #[arg(long, default_value_t = 1)]
    pub max_loras: usize,
    /// KV transfer.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Encodings.
    #[command(flatten)]
    pub encodings: EncodingArgs,
    /// Data-parallel ranks.
    #[command(flatten)]
    pub ranks: RankArgs,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Listen host.
    pub host: String,
    /// Listen port.
    pub port: u16,
    /// Names of the model, the shown one first.
    pub models: Vec<Arc<str>>,
    /// Model as given by `--model`.
    pub root: String,
    /// Adapters.
    pub adapters: Vec<LoraModule>,
    /// How answers are made.
    pub mode: Mode,
    /// Seed of everything random.
    pub seed: u64,
    /// Most tokens of prompt and answer.
    pub max_model_len: usize,
    /// Engine sizes.
    pub engine: EngineConfig,
    /// Step model.
    pub model: StepModel,
    /// Latencies in its place.
    pub overrides: Overrides,
    /// Spread of the step model.
    pub jitter: f64,
    /// Not ready for this long.
    pub startup: Duration,
    /// Time for streams to end on shutdown.
    pub drain: Duration,
    /// Percentage of failing requests.
    pub failure_rate: u8,
    /// Ways to fail.
    pub failures: Vec<FailureKind>,
    /// KV transfer.
    pub transfer: TransferSettings,
    /// Encodings, if the engine exchanges any.
    pub encodings: Option<EncodingSettings>,
    /// Data-parallel ranks.
    pub ranks: Ranks,
}

/// A wrong flag, or flags that do not go together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A value outside its range.
    #[error("--{flag}: {value} is out of range; {fix}")]
    Range {
        /// Flag without dashes.
        flag: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        fix: String,
    },
    /// Two flags that exclude each other.
    #[error("--{flag} and --{other} exclude each other; {fix}")]
    Conflict {
        /// One flag.
        flag: &'static str,
        /// The other.
        other: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// A flag that means nothing without another.
    #[error("--{flag} has no effect without --{needs}; {fix}")]
    Needs {
        /// The flag.
        flag: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// JSON that does not say what it must.
    #[error("--{flag}: {problem}")]
    Json {
        /// The flag.
        flag: &'static str,
        /// What is wrong, with the fix.
        problem: String,
    },
    /// The same name twice.
    #[error("--{flag}: the name `{name}` is given twice; names of models and adapters must differ")]
    Duplicate {
        /// The flag.
        flag: &'static str,
        /// The name.
        name: String,
    },
}

impl SimArgs {
    /// Flags as if only a model, loopback and port 0 had been given; for tests and `SimConfig` builders.
    pub fn for_model(model: &str) -> Self {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: SimArgs,
        }
        let command: Command =
            clap::Parser::parse_from(["sim", "--model", model, "--host", "127.0.0.1", "--port", "0"]);
        command.args
    }

    /// Checks the flags together.
    pub fn config(self) -> Result<SimConfig, ConfigError> {
        at_least_one("max-num-seqs", self.max_num_seqs)?;
        at_least_one("max-num-batched-tokens", self.max_num_batched_tokens)?;
        at_least_one("block-size", self.block_size)?;
        at_least_one("max-loras", self.max_loras)?;
        if self.max_model_len < 2 {
            return Err(range(
                "max-model-len",
                self.max_model_len,
                "at least 2: one prompt token and one answer token",
            ));
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            let fix = format!("at least --max-num-seqs ({})", self.max_num_seqs);
            return Err(range("max-num-batched-tokens", self.max_num_batched_tokens, fix));
        }
        let needed = self.max_model_len.div_ceil(self.block_size) + 1;
        if (self.kv_cache_size as usize) < needed {
            let fix = format!(
                "one sequence of --max-model-len {} needs {needed} blocks of --block-size {}; raise it or lower --max-model-len",
                self.max_model_len, self.block_size
            );
            return Err(range("kv-cache-size", self.kv_cache_size, fix));
        }
        if self.failure_injection_rate > 100 {
            return Err(range(
                "failure-injection-rate",
                self.failure_injection_rate,
                "0 to 100 percent",
            ));
        }
        if self.failure_injection_rate == 0 && !self.failure_types.is_empty() {
            let fix = "set a rate from 1 to 100 or leave the types out";
            return Err(ConfigError::Needs {
                flag: "failure-types",
                needs: "failure-injection-rate",
                fix,
            });
        }
        if !(0.0..=1.0).contains(&self.step_jitter) {
            return Err(range("step-jitter", self.step_jitter, "0 to 1"));
        }
        let overrides = self.overrides()?;
        if self.step_jitter > 0.0
            && (overrides.first_token.is_some() || overrides.prefill.is_some())
            && overrides.next_token.is_some()
        {
            return Err(ConfigError::Conflict {
                flag: "step-jitter",
                other: "inter-token-latency",
                fix: "no step time is left to spread; use the -std-dev flags",
            });
        }

        let mut models: Vec<Arc<str>> = Vec::new();
        let names = if self.served_model_name.is_empty() {
            vec![self.model.clone()]
        } else {
            self.served_model_name
        };
        for name in names {
            if name.is_empty() {
                return Err(range("served-model-name", "``", "a name that is not empty"));
            }
            if models.iter().any(|known| **known == name) {
                return Err(ConfigError::Duplicate {
                    flag: "served-model-name",
                    name,
                });
            }
            models.push(name.into());
        }
        for (index, adapter) in self.lora_modules.iter().enumerate() {
            let earlier = self.lora_modules[..index]
                .iter()
                .any(|known| known.name == adapter.name);
            if earlier || models.iter().any(|model| **model == adapter.name) {
                return Err(ConfigError::Duplicate {
                    flag: "lora-modules",
                    name: adapter.name.clone(),
                });
            }
        }
        let ranks = self.ranks.ranks(self.port)?;
        if ranks.local > 1 && ranks.ports == Ports::One && !self.lora_modules.is_empty() {
            return Err(ConfigError::Conflict {
                flag: "lora-modules",
                other: "data-parallel-size",
                fix: "vLLM has no adapters with several engines behind one port; use --data-parallel-multi-port-external-lb",
            });
        }
        let standard = StepModel::default();
        let seconds =
            |flag: Option<Duration>, standard: f64| flag.map_or(standard, |value| value.as_secs_f64());
        Ok(SimConfig {
            host: self.host,
            port: self.port,
            models,
            root: self.model,
            adapters: self.lora_modules,
            mode: self.mode,
            seed: self.seed,
            max_model_len: self.max_model_len,
            engine: EngineConfig {
                blocks: self.kv_cache_size,
                block_size: self.block_size,
                max_sequences: self.max_num_seqs,
                max_batched_tokens: self.max_num_batched_tokens,
                prefix_caching: self.enable_prefix_caching && !self.no_enable_prefix_caching,
                max_adapters: self.max_loras,
            },
            model: StepModel {
                base: seconds(self.step_base, standard.base),
                prefill_token: seconds(self.step_prefill_token, standard.prefill_token),
                decode_sequence: seconds(self.step_decode_sequence, standard.decode_sequence),
                ..standard
            },
            overrides,
            jitter: self.step_jitter,
            startup: self.startup_duration,
            transfer: self.transfer.settings()?,
            encodings: self.encodings.settings()?,
            ranks,
            drain: self.drain_timeout,
            failure_rate: self.failure_injection_rate,
            failures: if self.failure_types.is_empty() {
                FailureKind::ERRORS.to_vec()
            } else {
                self.failure_types
            },
        })
    }

    fn overrides(&self) -> Result<Overrides, ConfigError> {
        let grows = self.prefill_overhead.is_some() || self.prefill_time_per_token.is_some();
        if self.time_to_first_token.is_some() && grows {
            return Err(ConfigError::Conflict {
                flag: "time-to-first-token",
                other: "prefill-time-per-token",
                fix: "the first fixes the prefill time, the second (with --prefill-overhead) lets it grow with the prompt: choose one",
            });
        }
        if self.time_to_first_token_std_dev.is_some() && self.time_to_first_token.is_none() {
            let fix = "set the mean too, or use --step-jitter";
            return Err(ConfigError::Needs {
                flag: "time-to-first-token-std-dev",
                needs: "time-to-first-token",
                fix,
            });
        }
        if self.inter_token_latency_std_dev.is_some() && self.inter_token_latency.is_none() {
            let fix = "set the mean too, or use --step-jitter";
            return Err(ConfigError::Needs {
                flag: "inter-token-latency-std-dev",
                needs: "inter-token-latency",
                fix,
            });
        }
        if let Some(factor) = self.time_factor_under_load {
            if !(1.0..=1e6).contains(&factor) {
                return Err(range("time-factor-under-load", factor, "1 or more"));
            }
            if self.time_to_first_token.is_none() && self.inter_token_latency.is_none() && !grows {
                let fix = "the step model follows the load by itself; the factor is for fixed latencies";
                return Err(ConfigError::Needs {
                    flag: "time-factor-under-load",
                    needs: "inter-token-latency",
                    fix,
                });
            }
        }
        let latency = |mean: Option<Duration>, deviation: Option<Duration>| {
            mean.map(|mean| Latency {
                mean,
                deviation: deviation.unwrap_or_default(),
            })
        };
        Ok(Overrides {
            first_token: latency(self.time_to_first_token, self.time_to_first_token_std_dev),
            prefill: grows.then(|| PrefillLatency {
                overhead: self.prefill_overhead.unwrap_or_default(),
                per_token: self.prefill_time_per_token.unwrap_or_default(),
            }),
            next_token: latency(self.inter_token_latency, self.inter_token_latency_std_dev),
            under_load: self.time_factor_under_load.unwrap_or(1.0),
        })
    }
}

fn at_least_one(flag: &'static str, value: usize) -> Result<(), ConfigError> {
    if value == 0 {
        Err(range(flag, value, "at least 1"))
    } else {
        Ok(())
    }
}

fn range(flag: &'static str, value: impl std::fmt::Display, fix: impl Into<String>) -> ConfigError {
    ConfigError::Range {
        flag,
        value: value.to_string(),
        fix: fix.into(),
    }
}

/// Parses `1h`, `1.5s`, `20ms`, `40us`, `7ns` or a bare number of milliseconds; at most one day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration such as 200ms or 1.5s"))?;
    let factor = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "unknown unit `{unit}` in `{text}`; use ns, us, ms, s, m or h"
            ));
        }
    };
    let seconds = value * factor;
    if seconds > 86_400.0 {
        return Err(format!("`{text}` is more than a day"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests;
