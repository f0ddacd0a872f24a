//! Connector `mooncake`: both legs at once, under an id; the decode engine finds the prefill engine by its bootstrap
//! server.
//!
//! The server tells the ids of the engine's ranks; one of them is drawn and both legs are held to it. Source:
//! llm-d-router `pkg/sidecar/proxy/connector_mooncake.go`; vLLM `MooncakeConnector`. By document only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use llmd_openai::{Edit, edit};
use llmd_proxy::{Caller, Limits, TargetProtocol};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::{PARAMS, Pair, PairError};
use crate::api::Api;
use crate::hosts;

/// Longest wait for a bootstrap server, upstream's.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long its answer is believed: an engine that starts again has other ids.
const FRESH: Duration = Duration::from_secs(60);
/// Most engines that are remembered.
const MOST: usize = 1024;
/// Most bytes of its answer.
const LONGEST: usize = 1 << 20;

/// Ids of an engine's ranks, by rank.
type Ranks = Arc<BTreeMap<String, String>>;

/// Bootstrap servers and what they said.
pub(crate) struct Mooncake {
    port: u16,
    caller: Caller,
    known: Mutex<HashMap<String, (Instant, Ranks)>>,
}

impl std::fmt::Debug for Mooncake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mooncake")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Rank {
    engine_id: Option<String>,
}

impl Mooncake {
    /// Asks bootstrap servers at `port`; they speak plain HTTP.
    pub(crate) fn new(port: u16) -> Self {
        Self {
            port,
            caller: Caller::new(Limits::default(), TargetProtocol::default()),
            known: Mutex::default(),
        }
    }

    pub(super) async fn pair(&self, body: &[Bytes], api: Api, host: &str) -> Result<Pair, PairError> {
        let ranks = self.ranks(host).await?;
        let drawn = ranks.iter().nth(fastrand::usize(..ranks.len()));
        let Some((rank, engine)) = drawn else {
            return Err(PairError::Engine(format!(
                "the bootstrap server of {host} names no engine"
            )));
        };
        let id = format!("xfer-{}", Uuid::new_v4());
        let keeps =
            json!({"do_remote_decode": true, "do_remote_prefill": false, "transfer_id": id}).to_string();
        let edits: Vec<Edit<'_>> = api.one_token().chain([Edit::set(&[PARAMS], &keeps)]).collect();
        let reads = json!({
            "do_remote_prefill": true,
            "do_remote_decode": false,
            "transfer_id": id,
            "remote_bootstrap_addr": format!("http://{}", self.address(host)),
            "remote_engine_id": engine,
        });
        Ok(Pair {
            prefill: edit(body, &edits)?,
            decode: edit(body, &[Edit::set(&[PARAMS], &reads.to_string())])?,
            prefill_rank: Some(rank.clone()),
        })
    }

    /// What the bootstrap server of `host` said is no longer believed.
    pub(crate) fn forget(&self, host: &str) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(host);
    }

    fn address(&self, host: &str) -> String {
        hosts::join(hosts::bare(host), self.port)
    }

    async fn ranks(&self, host: &str) -> Result<Ranks, PairError> {
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, ranks)) = known.get(host).filter(|(since, _)| since.elapsed() < FRESH) {
                return Ok(Arc::clone(ranks));
            }
        }
        let asked = timeout(DEADLINE, self.ask(host)).await;
        let ranks = asked.map_err(|_| {
            PairError::Engine(format!(
                "the bootstrap server of {host} did not answer within {DEADLINE:?}"
            ))
        })??;
        let ranks = Arc::new(ranks);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(host.to_owned(), (Instant::now(), Arc::clone(&ranks)));
        Ok(ranks)
    }

    async fn ask(&self, host: &str) -> Result<BTreeMap<String, String>, PairError> {
        let address = self.address(host);
        let failed = |cause: String| PairError::Engine(format!("the bootstrap server {address}: {cause}"));
        let target = hosts::resolve(&address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let request = Request::get("/query").header("host", &address).body(());
        let (head, ()) = request.map_err(|error| failed(error.to_string()))?.into_parts();
        let answer = self.caller.call(target, &head, Vec::new(), LONGEST).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("it answered {}", answer.status())));
        }
        let ranks: BTreeMap<String, Rank> =
            serde_json::from_slice(answer.body()).map_err(|error| failed(error.to_string()))?;
        let named = ranks
            .into_iter()
            .filter_map(|(rank, entry)| Some((rank, entry.engine_id?)));
        let named: BTreeMap<_, _> = named.collect();
        if named.is_empty() {
            return Err(failed("no engine_id in its answer".to_owned()));
        }
        Ok(named)
    }
}
