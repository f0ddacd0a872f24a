//! A real Envoy in front of `llmd epp`, as the standalone router runs them.

mod aborts;
mod away;
mod bodies;
mod clients;
mod outage;
mod outliers;
mod rejections;
mod rendered;
mod replicas;
mod routing;
mod shadow;
mod start;
mod unread;
mod waiting;

use std::net::SocketAddr;

use llmd_e2e::echo::{Echo, Reply};
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::poll::{DEADLINE, free_port};
use llmd_e2e::{Process, http, poll_until_async};

/// Path of most requests.
const CHAT: &str = "/v1/chat/completions";

/// Envoy, a picker and recording upstreams.
struct Stack {
    envoy: Envoy,
    epp: Epp,
    upstreams: Vec<Echo>,
}

impl Stack {
    async fn start(replies: Vec<Reply>) -> Self {
        Self::start_with(replies, false).await
    }

    async fn start_with(replies: Vec<Reply>, secure: bool) -> Self {
        let mut upstreams = Vec::new();
        for reply in replies {
            upstreams.push(Echo::start(reply).await);
        }
        let addresses: Vec<SocketAddr> = upstreams.iter().map(|upstream| upstream.address).collect();
        let options = epp::Options {
            secure,
            ..epp::Options::default()
        };
        let epp = Epp::start(&addresses, &options).await;
        let options = envoy::Options {
            tls: secure,
            ..envoy::Options::default()
        };
        let envoy = Envoy::start(epp.ext_proc, &options).await;
        Self {
            envoy,
            epp,
            upstreams,
        }
    }
}

/// An answer as short as an engine may give.
fn short_answer() -> Reply {
    Reply::Json(r#"{"id":"1","object":"chat.completion","model":"m","choices":[]}"#.to_owned())
}

/// A valid request.
fn chat(text: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

/// A simulated engine that serves.
async fn engine() -> (Process, SocketAddr) {
    engine_of("tiny").await
}

/// A simulated engine of a model.
async fn engine_of(model: &str) -> (Process, SocketAddr) {
    engine_with(model, &[]).await
}

/// A simulated engine of a model, with further flags.
async fn engine_with(model: &str, flags: &[&str]) -> (Process, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let port = format!("--port={}", address.port());
    let model = format!("--model={model}");
    let process = Process::llmd(["sim", &model, &port].into_iter().chain(flags.iter().copied()));
    poll_until_async("a ready simulator", DEADLINE, || async {
        let answer = http::get(address, "/health").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    (process, address)
}
