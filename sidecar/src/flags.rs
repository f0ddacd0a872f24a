//! The command line of `llmd sidecar`: llm-d-router's flags, and a few of our own.
//!
//! A flag whose feature this build does not have is refused by name; one that has no effect without another one is told.

mod connector;
mod declared;
pub(crate) mod engines;
mod file;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use llmd_process::logging::{Logging, level_of_verbosity};
use llmd_process::pflag::{FlagError, Flags};
use llmd_process::tls::ServerTls;

use crate::allowed::Pool;
use crate::connector::peers::Peers;
use crate::legs::encode::EcConnector;
use crate::legs::prefill::{OnFailure, Retries};
use connector::Wanted;
use declared::DEPENDENT;
pub use declared::flag_set;
use engines::EngineTls;

/// Why a command line cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// Not a command line of this role.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// A value out of its range.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {fix}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        fix: String,
    },
    /// A variable of the environment.
    #[error("the variable {variable} is {value:?}: it {fix}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        fix: &'static str,
    },
    /// `--configuration` or `--configuration-file`.
    #[error("--{flag}: {cause}")]
    Configuration {
        /// Which of both.
        flag: &'static str,
        /// What is wrong.
        cause: String,
    },
}

/// A command line, checked.
#[derive(Debug)]
pub struct SidecarOptions {
    /// First listener; one per rank follows.
    pub port: u16,
    /// First port of the engine.
    pub engine_port: u16,
    /// Listeners, and ports of the engine.
    pub ranks: u16,
    /// TLS of the listeners; `None` serves plain HTTP.
    pub tls: Option<ServerTls>,
    /// Metrics page; `None` has none.
    pub metrics_port: Option<u16>,
    /// Idle connections kept per engine.
    pub idle_connections: usize,
    /// Longest time for requests in flight after SIGTERM.
    pub drain: Duration,
    /// Logs.
    pub logging: Logging,
    /// Flags without effect.
    pub notes: Vec<String>,
    /// Whether spans are exported.
    pub tracing: bool,
    pub(crate) on_failure: OnFailure,
    pub(crate) retries: Retries,
    pub(crate) samples: bool,
    pub(crate) connector: Wanted,
    pub(crate) peers: Peers,
    pub(crate) embeddings: Option<EcConnector>,
    pub(crate) engine_tls: EngineTls,
    /// Most tokens of a part of an answer; `None` asks for the whole.
    pub(crate) chunk_tokens: Option<u64>,
    /// Whether chats may have their next turn prepared.
    pub(crate) prepares_turns: bool,
    /// Whose pods requests may name.
    pub(crate) pool: Option<Pool>,
    /// Certificate of the metrics page.
    pub(crate) metrics_tls: Option<ServerTls>,
    /// Address of this pod; `None`: requests of other destinations are not told apart.
    pub(crate) pod: Option<IpAddr>,
}

impl SidecarOptions {
    /// Reads a command line without the program's name; `env` looks variables up.
    ///
    /// # Errors
    /// Names the flag and what it may be.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, OptionError> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let given = flag_set().parse(arguments.clone())?;
        // Flags win over the file: of two equal flags the later one counts.
        let flags = match file::read(&given)? {
            Some(from_file) => flag_set().parse(from_file.into_iter().chain(arguments))?,
            None => given,
        };
        Self::checked(&flags, env)
    }

    fn checked(flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Result<Self, OptionError> {
        let connector = Wanted::read(flags, &env)?;
        let embeddings = match flags.string("ec-connector").as_str() {
            "" => None,
            "ec-nixl" => Some(EcConnector::Nixl),
            "ec-example" => Some(EcConnector::Example),
            other => return Err(value("ec-connector", other, "use ec-nixl or ec-example")),
        };
        let ranks = ranged(flags, "data-parallel-size", 1, 1024)?;
        let port = ranged(flags, "port", 1, 65535)?;
        let engine_flag = if flags.is_set("vllm-port") && !flags.is_set("model-server-port") {
            "vllm-port"
        } else {
            "model-server-port"
        };
        let engine_port = ranged(flags, engine_flag, 1, 65535)?;
        for (flag, first) in [("port", port), (engine_flag, engine_port)] {
            if u32::from(first) + u32::from(ranks) - 1 > 65535 {
                let fix = format!("with --data-parallel-size={ranks} the last port would be above 65535");
                return Err(value(flag, &first.to_string(), &fix));
            }
        }
        let backoff = flags.duration("prefill-retry-backoff");
        let retries = ranged(flags, "prefill-max-retries", 0, 1000)?;
        if retries > 0 && backoff.is_zero() {
            return Err(value(
                "prefill-retry-backoff",
                "0s",
                "must be above 0 with --prefill-max-retries",
            ));
        }
        let on_failure = match flags.string("prefill-failure").as_str() {
            "fallback" => OnFailure::Fallback,
            "error" => OnFailure::Error,
            other => return Err(value("prefill-failure", other, "use fallback or error")),
        };
        let secure = if flags.is_set("secure-proxy") && !flags.is_set("secure-serving") {
            flags.bool("secure-proxy")
        } else {
            flags.bool("secure-serving")
        };
        let sampling = "enable-prefiller-sampling";
        let samples = if flags.is_set(sampling) {
            flags.bool(sampling)
        } else {
            env("ENABLE_PREFILLER_SAMPLING").is_some_and(|value| value == "true")
        };
        let notes = DEPENDENT
            .iter()
            .filter(|(flag, other, wanted)| flags.is_set(flag) && flags.text(other) != *wanted)
            .map(|(flag, other, wanted)| format!("--{flag} has no effect without --{other}={wanted}"));
        let peers = connector.peers(flags, &env, (port, ranks))?;
        Ok(Self {
            port,
            engine_port,
            ranks,
            tls: secure.then(|| tls(flags)),
            metrics_port: Some(ranged(flags, "metrics-port", 0, 65535)?).filter(|port| *port > 0),
            idle_connections: ranged(flags, "max-idle-conns-per-host", 1, 65535)?.into(),
            drain: flags.duration("drain-timeout"),
            logging: Logging {
                level: level_of_verbosity(flags.int("v")),
                ..Logging::default()
            },
            notes: notes.collect(),
            tracing: flags.bool("tracing"),
            on_failure,
            retries: Retries {
                count: retries.into(),
                backoff,
            },
            samples,
            connector,
            peers,
            embeddings,
            engine_tls: EngineTls::read(flags)?,
            chunk_tokens: Some(flags.int("decode-chunk-size"))
                .and_then(|tokens| u64::try_from(tokens).ok())
                .filter(|tokens| *tokens > 0),
            prepares_turns: flags.bool("enable-speculative-prefill"),
            pool: engines::pool(flags, &env)?,
            metrics_tls: metrics_tls(flags),
            pod: pod(&env)?,
        })
    }
}

fn tls(flags: &Flags) -> ServerTls {
    let suites = flags.string("tls-cipher-suites");
    let suites = suites.split(',');
    ServerTls {
        directory: Some(flags.string("cert-path"))
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        min_version: flags.string("tls-min-version"),
        cipher_suites: suites
            .map(str::trim)
            .filter(|suite| !suite.is_empty())
            .map(str::to_owned)
            .collect(),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        client_ca: None,
    }
}

/// TLS of the metrics page, with HTTP/1.1 as scrapers speak it.
fn metrics_tls(flags: &Flags) -> Option<ServerTls> {
    let directory = Some(flags.string("metrics-cert-dir")).filter(|path| !path.is_empty())?;
    Some(ServerTls {
        directory: Some(PathBuf::from(directory)),
        alpn: vec![b"http/1.1".to_vec()],
        ..tls(flags)
    })
}

/// `POD_IP`; the operator sets it, a host behind address translation must not.
fn pod(env: impl Fn(&str) -> Option<String>) -> Result<Option<IpAddr>, OptionError> {
    let given = env("POD_IP").filter(|given| !given.is_empty());
    let parsed = given.map(|given| {
        given.parse().map_err(|_| OptionError::Variable {
            variable: "POD_IP",
            value: given,
            fix: "must be the pod's address (fieldRef status.podIP), or not be set",
        })
    });
    parsed.transpose()
}

fn value(flag: &'static str, value: &str, fix: &str) -> OptionError {
    OptionError::Value {
        flag,
        value: value.to_owned(),
        fix: fix.to_owned(),
    }
}

fn ranged(flags: &Flags, flag: &'static str, least: u16, most: u16) -> Result<u16, OptionError> {
    let given = flags.int(flag);
    let number = u16::try_from(given)
        .ok()
        .filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        value(
            flag,
            &given.to_string(),
            &format!("use a number from {least} to {most}"),
        )
    })
}

#[cfg(test)]
mod tests;
