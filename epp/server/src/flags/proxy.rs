//! The flags of the built-in proxy; none of them is upstream's.

use std::net::IpAddr;
use std::path::PathBuf;

use llmd_process::pflag::{FlagSet, Flags};
use llmd_process::tls::ServerTls;
use llmd_proxy::Limits;
use rustls::pki_types::ServerName;

use crate::builtin_proxy::access_log::AccessLogFormat;

use super::{OptionError, path, port, positive, tls, value};

/// The built-in HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// `--proxy-bind-address`.
    pub address: IpAddr,
    /// `--proxy-port`.
    pub port: u16,
    /// `--proxy-api-key-file`.
    pub api_key_file: Option<PathBuf>,
    /// `--proxy-stream-continuation`.
    pub stream_continuation: bool,
    /// TLS towards clients: `--proxy-cert-dir`, `--proxy-client-ca-file`; the certificate is followed.
    pub tls: Option<ServerTls>,
    /// `--proxy-trust-forwarded-headers`.
    pub trusts_forwarded: bool,
    /// What is written about each request.
    pub access_log: Option<AccessLogOptions>,
    /// How engines are spoken with.
    pub engines: EngineOptions,
    /// Deadlines and bounds. `--max-request-body-size`, `--max-buffered-body-size` and the drain are set where the
    /// proxy starts.
    pub limits: Limits,
}

/// How the proxy speaks with engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// `--proxy-engine-protocol`: whether it is HTTP/2; `None` goes by the pool's `appProtocol`.
    pub http2: Option<bool>,
    /// `--proxy-engine-tls` and what belongs to it.
    pub tls: Option<EngineTls>,
}

/// TLS towards engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineTls {
    /// `--proxy-engine-ca-file`; `None` takes any certificate, which `--proxy-engine-insecure-skip-verify` says.
    pub ca: Option<PathBuf>,
    /// `--proxy-engine-server-name`; `None` is the engine's address.
    pub server_name: Option<ServerName<'static>>,
}

/// The log of the proxy's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// `--proxy-access-log`.
    pub format: AccessLogFormat,
    /// `--proxy-access-log-file`; `None` is stdout.
    pub file: Option<PathBuf>,
}

/// Adds the flags with their defaults, which are those of [`Limits`].
pub(super) fn declare(flags: FlagSet) -> FlagSet {
    flags
        .int(
            "proxy-port",
            0,
            "port of the built-in HTTP proxy; 0 switches it off",
        )
        .string(
            "proxy-bind-address",
            "0.0.0.0",
            "address of the built-in HTTP proxy",
        )
        .string(
            "proxy-api-key-file",
            "",
            "file with the API keys that clients of the proxy must send",
        )
        .bool(
            "proxy-stream-continuation",
            true,
            "continue a stream whose engine died on another engine",
        )
        .string(
            "proxy-cert-dir",
            "",
            "directory with tls.crt and tls.key of the proxy, followed; empty serves plain HTTP",
        )
        .string(
            "proxy-client-ca-file",
            "",
            "file with the CA of the proxy's clients, which need a certificate then; needs proxy-cert-dir",
        )
        .bool(
            "proxy-trust-forwarded-headers",
            false,
            "pass on what clients say in Forwarded and X-Forwarded-*; only behind a proxy that sets them",
        )
        .string(
            "proxy-access-log",
            "",
            "writes a line about each request of the proxy: json or text; empty writes none",
        )
        .string(
            "proxy-access-log-file",
            "",
            "file to which these lines are added; empty is stdout",
        )
        .string(
            "proxy-engine-protocol",
            "",
            "how the proxy speaks with engines: http/1.1 or h2; empty goes by the pool's appProtocol",
        )
        .bool(
            "proxy-engine-tls",
            false,
            "the proxy speaks TLS with engines, which offer the protocol by ALPN",
        )
        .string(
            "proxy-engine-ca-file",
            "",
            "file with the CA of the engines' certificates; needs proxy-engine-tls",
        )
        .string(
            "proxy-engine-server-name",
            "",
            "name in the engines' certificates; empty is their address",
        )
        .bool(
            "proxy-engine-insecure-skip-verify",
            false,
            "take any certificate of engines; needs proxy-engine-tls",
        )
        .duration(
            "proxy-request-head-timeout",
            "30s",
            "longest time from the first byte of a request head to its last, and of a TLS handshake",
        )
        .duration(
            "proxy-request-idle-timeout",
            "1m",
            "longest pause inside a request body; then 408",
        )
        .duration(
            "proxy-request-body-timeout",
            "10m",
            "longest time from a request head to the end of its body; then 408",
        )
        .duration(
            "proxy-client-idle-timeout",
            "5m",
            "how long a client's connection may be open without a request",
        )
        .duration(
            "proxy-client-stall-timeout",
            "5m",
            "how long a client may take no byte of its answer",
        )
        .duration(
            "proxy-connect-timeout",
            "5s",
            "longest wait for a connection to an engine",
        )
        .duration(
            "proxy-response-start-timeout",
            "1h",
            "longest wait for the first byte of an answer; then 504",
        )
        .duration(
            "proxy-response-idle-timeout",
            "10m",
            "longest pause inside an answer",
        )
        .duration(
            "proxy-request-timeout",
            "0s",
            "longest time from a request head to the last byte of its answer; 0: no bound",
        )
        .int(
            "proxy-max-connections",
            40_000,
            "most connections of clients; further ones wait",
        )
        .int(
            "proxy-max-requests",
            40_000,
            "most requests in flight; beyond it 503",
        )
}

/// `None` without a port; the other flags are checked all the same.
pub(super) fn parse(flags: &Flags, address: Option<IpAddr>) -> Result<Option<ProxyOptions>, OptionError> {
    let options = ProxyOptions {
        address: address.unwrap_or(IpAddr::from([0, 0, 0, 0])),
        port: port(flags, "proxy-port")?,
        api_key_file: path(flags, "proxy-api-key-file"),
        stream_continuation: flags.bool("proxy-stream-continuation"),
        tls: client_tls(flags)?,
        trusts_forwarded: flags.bool("proxy-trust-forwarded-headers"),
        access_log: access_log(flags)?,
        engines: EngineOptions {
            http2: engine_protocol(flags)?,
            tls: engine_tls(flags)?,
        },
        limits: limits(flags)?,
    };
    Ok((options.port != 0).then_some(options))
}

fn client_tls(flags: &Flags) -> Result<Option<ServerTls>, OptionError> {
    let directory = path(flags, "proxy-cert-dir");
    let client_ca = path(flags, "proxy-client-ca-file");
    if let (None, Some(file)) = (&directory, &client_ca) {
        let fix = "give --proxy-cert-dir too: certificates of clients need TLS";
        return Err(value("proxy-client-ca-file", &file.display().to_string(), fix));
    }
    Ok(directory.map(|directory| ServerTls {
        directory: Some(directory),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        client_ca,
        ..tls(flags)
    }))
}

fn engine_protocol(flags: &Flags) -> Result<Option<bool>, OptionError> {
    let given = flags.string("proxy-engine-protocol");
    match given.as_str() {
        "" => Ok(None),
        "http/1.1" => Ok(Some(false)),
        "h2" => Ok(Some(true)),
        _ => Err(value("proxy-engine-protocol", &given, "use http/1.1 or h2")),
    }
}

fn engine_tls(flags: &Flags) -> Result<Option<EngineTls>, OptionError> {
    let ca = path(flags, "proxy-engine-ca-file");
    let name = flags.string("proxy-engine-server-name");
    let skips = flags.bool("proxy-engine-insecure-skip-verify");
    if !flags.bool("proxy-engine-tls") {
        let ca = flags.string("proxy-engine-ca-file");
        let given = [
            ("proxy-engine-ca-file", ca),
            ("proxy-engine-server-name", name),
            (
                "proxy-engine-insecure-skip-verify",
                if skips { "true".to_owned() } else { String::new() },
            ),
        ];
        if let Some((flag, text)) = given.iter().find(|(_, text)| !text.is_empty()) {
            return Err(value(flag, text, "give --proxy-engine-tls too"));
        }
        return Ok(None);
    }
    match (&ca, skips) {
        (Some(_), true) => {
            return Err(OptionError::Exclusive(
                "proxy-engine-ca-file",
                "proxy-engine-insecure-skip-verify",
            ));
        }
        (None, false) => {
            let fix = "give --proxy-engine-ca-file with what signs the engines' certificates";
            return Err(value("proxy-engine-tls", "true", fix));
        }
        _ => {}
    }
    let server_name = match name.as_str() {
        "" => None,
        given => Some(ServerName::try_from(given.to_owned()).map_err(|_| {
            value(
                "proxy-engine-server-name",
                given,
                "give a name of DNS or an address",
            )
        })?),
    };
    Ok(Some(EngineTls { ca, server_name }))
}

fn access_log(flags: &Flags) -> Result<Option<AccessLogOptions>, OptionError> {
    let file = path(flags, "proxy-access-log-file");
    let given = flags.string("proxy-access-log");
    let format = match (given.as_str(), &file) {
        ("json", _) => AccessLogFormat::Json,
        ("text", _) => AccessLogFormat::Text,
        ("", None) => return Ok(None),
        ("", Some(file)) => {
            let fix = "give --proxy-access-log=json or text too";
            return Err(value("proxy-access-log-file", &file.display().to_string(), fix));
        }
        _ => return Err(value("proxy-access-log", &given, "use json or text")),
    };
    Ok(Some(AccessLogOptions { format, file }))
}

fn limits(flags: &Flags) -> Result<Limits, OptionError> {
    let total = flags.duration("proxy-request-timeout");
    Ok(Limits {
        concurrent_requests: count(flags, "proxy-max-requests")?,
        connections: count(flags, "proxy-max-connections")?,
        request_head: positive(flags, "proxy-request-head-timeout")?,
        request_idle: positive(flags, "proxy-request-idle-timeout")?,
        request_body: positive(flags, "proxy-request-body-timeout")?,
        client_idle: positive(flags, "proxy-client-idle-timeout")?,
        client_stall: positive(flags, "proxy-client-stall-timeout")?,
        connect: positive(flags, "proxy-connect-timeout")?,
        response_head: positive(flags, "proxy-response-start-timeout")?,
        response_idle: positive(flags, "proxy-response-idle-timeout")?,
        total: (!total.is_zero()).then_some(total),
        ..Limits::default()
    })
}

/// From 1 to what a semaphore holds.
fn count(flags: &Flags, name: &'static str) -> Result<usize, OptionError> {
    let given = flags.int(name);
    let counted = u32::try_from(given).ok().filter(|count| *count > 0);
    counted
        .map(|count| count as usize)
        .ok_or_else(|| value(name, &given.to_string(), "give a number from 1 to 4294967295"))
}
