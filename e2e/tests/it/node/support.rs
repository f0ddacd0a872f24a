//! Clusters that the journeys share, load, and what they ask of both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use llmd_e2e::http::{self, Answer, Kept};
use llmd_e2e_cluster::image::ENVOY;
use llmd_e2e_cluster::{Cluster, Images, Namespace, Shared};

use serde_json::json;

use crate::up::support::engine;

/// Two real nodes, none but Kubernetes' own kinds; ours come with the chart. A cluster of nodes takes a share of what a
/// machine has of memory and inotify instances (128 in all by default): no test starts another one without need.
pub static BARE: Shared = Shared::new(|| Cluster::node(2).without_our_crds());
/// The same with Gateway API, InferencePool, KEDA and LeaderWorkerSet, whose controller runs.
pub static FOREIGN: Shared = Shared::new(|| {
    let cluster = Cluster::node(2).without_our_crds();
    cluster.with_foreign_crds().with_lws()
});

pub const PYTHON: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
messages = [{"role": "user", "content": "Say hello"}]
whole = client.chat.completions.create(model="test/model", messages=messages, max_tokens=8)
chunks = list(client.chat.completions.create(model="test/model", messages=messages, max_tokens=8, stream=True))
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text and text == whole.choices[0].message.content, (text, whole)
print("streamed")
"#;

/// A namespace of a cluster whose nodes have our images and Envoy's.
pub async fn namespace(shared: &Shared) -> (Namespace, Images) {
    let cluster = shared.get().await.unwrap();
    let images = cluster.install_llmd().await.unwrap();
    cluster.install_envoy(ENVOY).await.unwrap();
    (cluster.namespace().await.unwrap(), images)
}

/// How a client asks.
#[derive(Clone, Copy)]
enum Manner {
    /// A connection for each request.
    Fresh,
    /// One connection, opened anew when the server has closed it between two requests.
    Kept,
    /// Streams of some seconds.
    Streaming,
}

const MANNERS: [Manner; 8] = [
    Manner::Fresh,
    Manner::Fresh,
    Manner::Fresh,
    Manner::Kept,
    Manner::Kept,
    Manner::Kept,
    Manner::Streaming,
    Manner::Streaming,
];
/// Tokens of a stream.
const STREAMED: u32 = 200;

/// Requests in the background, each with another prompt, from clients of each kind.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    engines: Arc<Mutex<BTreeSet<String>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

async fn ask(
    address: SocketAddr,
    manner: Manner,
    prompt: &str,
    kept: &mut Option<Kept>,
) -> anyhow::Result<Answer> {
    let streams = matches!(manner, Manner::Streaming);
    let tokens = if streams { STREAMED } else { 8 };
    let body = json!({
        "model": "test/model", "max_tokens": tokens, "ignore_eos": true, "stream": streams,
        "messages": [{"role": "user", "content": prompt}],
    });
    let body = body.to_string();
    let request = http::json_request("/v1/chat/completions", body, &[])?;
    match manner {
        Manner::Fresh => http::send(address, request).await,
        Manner::Kept => {
            if let Some(connection) = kept
                && !connection.is_open().await
            {
                *kept = None;
            }
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Kept::open(address).await?,
            };
            let answer = connection.send(request).await;
            *kept = Some(connection);
            answer
        }
        Manner::Streaming => {
            let answer = http::send(address, request).await?;
            let text = answer.text();
            anyhow::ensure!(
                text.ends_with("data: [DONE]\n\n")
                    && text.contains("\"finish_reason\":\"")
                    && !text.contains("\"error\""),
                "the stream broke off: …{}",
                &text[text.len().saturating_sub(300)..]
            );
            Ok(answer)
        }
    }
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let engines = Arc::new(Mutex::new(BTreeSet::new()));
        let clients = (MANNERS.into_iter().enumerate())
            .map(|(client, manner)| {
                let (stop, sent, engines) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&engines));
                tokio::spawn(async move {
                    let mut kept = None;
                    while !stop.load(Ordering::Relaxed) {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let prompt = format!("client {client} number {number}");
                        let answer = ask(address, manner, &prompt, &mut kept).await;
                        let answer = answer.unwrap_or_else(|error| panic!("{prompt}: {error:#}"));
                        assert_eq!(answer.status, 200, "{prompt}: {}", answer.text());
                        engines.lock().unwrap().insert(engine(&answer));
                    }
                })
            })
            .collect();
        Self {
            stop,
            sent,
            engines,
            clients,
        }
    }

    /// How many requests were sent so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Pods that answered so far.
    pub fn engines(&self) -> BTreeSet<String> {
        self.engines.lock().unwrap().clone()
    }

    /// Ends the load. Fails when any request had failed.
    pub async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}
