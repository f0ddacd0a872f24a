//! Clusters that the journeys share, load, and what they ask of both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use llmd_e2e::http;
use llmd_e2e_cluster::image::ENVOY;
use llmd_e2e_cluster::{Cluster, Images, Namespace, Shared};

use crate::up::support::{body, engine};

/// Two real nodes, none but Kubernetes' own kinds and ours.
pub static BARE: Shared = Shared::new(|| Cluster::node(2));
/// The same with Gateway API, InferencePool, LeaderWorkerSet and KEDA.
pub static FOREIGN: Shared = Shared::new(|| Cluster::node(2).with_foreign_crds());

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

/// Requests in the background, each with another prompt, from eight clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    engines: Arc<Mutex<BTreeSet<String>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let engines = Arc::new(Mutex::new(BTreeSet::new()));
        let clients = (0..8)
            .map(|client| {
                let (stop, sent, engines) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&engines));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let prompt = format!("client {client} number {number}");
                        let request = body("test/model", &prompt, 8, false);
                        let answer = http::post(address, "/v1/chat/completions", request, &[]).await;
                        let answer = answer.unwrap_or_else(|error| panic!("request {number}: {error:#}"));
                        assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
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
