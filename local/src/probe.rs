//! Executes startup, readiness and liveness probes the way the kubelet does.
//!
//! One deviation: while a container has not started, it is asked every [`START_PERIOD`] instead of after
//! `initialDelaySeconds` and every `periodSeconds`, because somebody watches. The time a container has to start
//! (`initialDelaySeconds + periodSeconds × failureThreshold`) stays.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Time between two questions to a container that has not started.
pub const START_PERIOD: Duration = Duration::from_millis(100);

/// Most bytes that are read of an answer.
const BODY_LIMIT: usize = 64 * 1024;

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// GET; a status of 200..=399 is a success.
    Http {
        /// Local port.
        port: u16,
        /// Path with query.
        path: String,
    },
    /// `grpc.health.v1.Health/Check`; SERVING is a success.
    Grpc {
        /// Local port.
        port: u16,
        /// Service name in the request.
        service: String,
    },
    /// A connection is a success.
    Tcp {
        /// Local port.
        port: u16,
    },
}

/// A probe with its timing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub action: Action,
    /// Wait before the first question.
    pub initial_delay: Duration,
    /// Time between questions.
    pub period: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Failures in a row that count.
    pub failure_threshold: u32,
}

impl Probe {
    /// How long a container may fail this probe from its start.
    pub fn patience(&self) -> Duration {
        self.initial_delay + self.period * self.failure_threshold
    }
}

/// The probes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Until it succeeds, the others wait.
    pub startup: Option<Probe>,
    /// Decides whether the pod is an endpoint.
    pub readiness: Option<Probe>,
    /// Its failure restarts the container.
    pub liveness: Option<Probe>,
}

/// Asks probes; one per run, so that connections are reused.
#[derive(Clone, Debug)]
pub struct Prober {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            http: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0) // the kubelet opens a connection per probe, and a dead engine must show
                .build_http(),
        }
    }
}

impl Prober {
    /// Asks once; the error says what went wrong.
    pub async fn ask(&self, probe: &Probe) -> Result<(), String> {
        let asked = async {
            match &probe.action {
                Action::Http { port, path } => self.ask_http(*port, path).await,
                Action::Grpc { port, service } => ask_grpc(*port, service).await,
                Action::Tcp { port } => TcpStream::connect(("127.0.0.1", *port))
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string()),
            }
        };
        match tokio::time::timeout(probe.timeout, asked).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", probe.timeout.as_secs())),
        }
    }

    async fn ask_http(&self, port: u16, path: &str) -> Result<(), String> {
        let uri: http::Uri = format!("http://127.0.0.1:{port}{path}")
            .parse()
            .map_err(|error| format!("path `{path}`: {error}"))?;
        let answer = self.http.get(uri).await.map_err(|error| chain(&error))?;
        let status = answer.status().as_u16();
        if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(format!("status {status}"))
        }
    }

    /// GETs `url` and returns status and body, within `deadline`.
    pub async fn get(&self, url: &str, deadline: Duration) -> Result<(u16, Bytes), String> {
        let uri: http::Uri = url.parse().map_err(|error| format!("{error}"))?;
        let fetch = async {
            let answer = self.http.get(uri).await.map_err(|error| chain(&error))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BODY_LIMIT * 64).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        match tokio::time::timeout(deadline, fetch).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", deadline.as_secs_f32())),
        }
    }
}

/// The cause at the bottom of an error: hyper's own text says "client error (Connect)" only.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The health check by hand: the message is one string, the answer one enum, and a gRPC stack for it would be the
/// only reason to have one here.
async fn ask_grpc(port: u16, service: &str) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| chain(error);
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| text(&error))?;
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://127.0.0.1:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(health_request(service)))
        .map_err(|error| text(&error))?;
    let answer = send.send_request(request).await.map_err(|error| text(&error));
    let body = match answer {
        Ok(answer) => Limited::new(answer.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    drop(send);
    driver.abort();
    match health_status(&body?.to_bytes()) {
        Some(1) => Ok(()),
        Some(_) => Err(format!("service `{service}` is not serving")),
        None => Err(format!("no health status for service `{service}`")),
    }
}

/// A gRPC frame with `HealthCheckRequest {service = 1}`.
fn health_request(service: &str) -> Bytes {
    let service = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::with_capacity(service.len() + 2);
    if !service.is_empty() {
        message.extend([0x0a, service.len() as u8]);
        message.extend(service);
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// `HealthCheckResponse {status = 1}` out of a gRPC frame; an empty message is UNKNOWN (0).
fn health_status(frame: &[u8]) -> Option<u8> {
    let (head, message) = frame.split_at_checked(5)?;
    match (head[0], message) {
        (0, []) => Some(0),
        (0, [0x08, status, ..]) => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_frames_are_what_grpc_sends() {
        assert_eq!(
            health_request("ab").as_ref(),
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
        assert_eq!(health_request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(health_status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(health_status(&[]), None);
    }

    #[test]
    fn patience_is_what_the_kubelet_grants() {
        let probe = Probe {
            action: Action::Tcp { port: 1 },
            initial_delay: Duration::from_secs(15),
            period: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            failure_threshold: 120,
        };
        assert_eq!(probe.patience().as_secs(), 3615);
    }
}
