//! MoRI-IO in write mode, under the connector `nixlv2`: the prefill engine writes blocks into the decode engine's
//! memory, so that it is told where that is.
//!
//! Legs follow each other, or run at once: then the decode engine allocates while the prompt is computed, and its answer
//! waits for the prefill engine's. Source: llm-d-router `pkg/sidecar/proxy/{connector_nixlv2,dp_rank}.go`. By document
//! only.

use std::collections::BTreeMap;
use std::time::Duration;

use blake2::{Blake2s256, Digest};
use bytes::Bytes;
use llmd_openai::{Edit, EditError, edit};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::peers::Peers;
use super::{PARAMS, Pair, PairError};
use crate::api::Api;
use crate::hosts;
use crate::resolver::Resolver;

/// Where one side's engines wait for the other's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) handshake: u16,
    pub(crate) notify: u16,
}

/// What the engines are told.
#[derive(Debug)]
pub(crate) struct Moriio {
    /// Both legs at once.
    pub(crate) is_parallel: bool,
    /// Longest wait of a decode leg for the prefill leg that runs beside it.
    pub(crate) patience: Duration,
    /// This pod, as engines reach it.
    pub(crate) own_host: String,
    pub(crate) decode: Ports,
    pub(crate) prefill: Ports,
    pub(crate) tensor_ranks: u16,
    pub(crate) data_ranks: u16,
    /// Ranks per pod, where a group has several pods; 0 elsewhere.
    pub(crate) local_data_ranks: u16,
    pub(crate) prefill_hosts: Vec<String>,
    pub(crate) decode_hosts: Vec<String>,
    pub(crate) resolver: Resolver,
}

impl Moriio {
    /// The rank of a request: both legs choose the same one.
    pub(crate) fn rank(&self, request_id: &str) -> u16 {
        if self.data_ranks <= 1 {
            return 0;
        }
        let digest = Blake2s256::digest(request_id.as_bytes());
        let head = digest
            .iter()
            .take(8)
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        // Below a u16.
        u16::try_from(head % u64::from(self.data_ranks)).unwrap_or(0)
    }

    /// The rank as a header says it, where there are several.
    pub(crate) fn rank_header(&self, rank: u16) -> Option<String> {
        (self.data_ranks > 1).then(|| rank.to_string())
    }

    /// The body of the prefill leg: it writes here.
    pub(crate) async fn prefill(
        &self,
        peers: &Peers,
        body: &[Bytes],
        api: Api,
        (host, source): (&str, Option<&str>),
        request_id: &str,
    ) -> Result<Vec<Bytes>, EditError> {
        let own = self.resolver.resolve(std::slice::from_ref(&self.own_host)).await;
        let mut params = json!({
            "do_remote_decode": true,
            "do_remote_prefill": false,
            "remote_engine_id": null,
            "remote_block_ids": null,
            "remote_host": own.first(),
            "remote_port": null,
            "remote_notify_port": self.decode.notify,
            "remote_dp_rank": self.rank(request_id),
            "remote_dp_rank_override": true,
            "remote_handshake_port": self.decode.handshake,
            "transfer_id": transfer(request_id),
            "tp_size": self.tensor_ranks,
            "remote_dp_size": self.data_ranks,
        });
        self.spread(&mut params, &self.decode_hosts).await;
        if let Some(source) = peers.source_for(host, source) {
            params["remote_kv_source"] = source;
        }
        let params = params.to_string();
        let edits: Vec<Edit<'_>> = api.one_token().chain([Edit::set(&[PARAMS], &params)]).collect();
        edit(body, &edits)
    }

    /// The body of the decode leg after it, and its rank: what the prefill engine left out is filled in.
    pub(crate) async fn decode(
        &self,
        body: &[Bytes],
        said: Option<&RawValue>,
        request_id: &str,
    ) -> Result<(Vec<Bytes>, u16), EditError> {
        let hashed = self.rank(request_id);
        let said =
            said.and_then(|said| serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(said.get()).ok());
        let Some(mut params) = said else {
            return Ok((body.to_vec(), hashed));
        };
        let returned = params
            .get("remote_dp_rank")
            .and_then(|rank| rank.get().parse::<u16>().ok());
        let rank = returned.filter(|rank| *rank < self.data_ranks).unwrap_or(hashed);
        let mut rest = json!({
            "transfer_id": transfer(request_id),
            "remote_notify_port": self.decode.notify,
            "remote_handshake_port": self.decode.handshake,
            "remote_dp_size": self.data_ranks,
        });
        self.spread(&mut rest, &self.prefill_hosts).await;
        let rest = rest.as_object().into_iter().flatten();
        for (name, value) in rest.map(|(name, value)| (name.as_str(), value)) {
            if !params.contains_key(name) {
                params.insert(name.to_owned(), raw(value)?);
            }
        }
        params.insert("remote_dp_rank".to_owned(), raw(&json!(rank))?);
        params.insert("remote_dp_rank_override".to_owned(), raw(&json!(true))?);
        let params = serde_json::to_string(&params).unwrap_or_default();
        Ok((edit(body, &[Edit::set(&[PARAMS], &params)])?, rank))
    }

    /// Both legs at once: what the prefill engine would say is known.
    pub(super) async fn pair(
        &self,
        peers: &Peers,
        body: &[Bytes],
        api: Api,
        host: &str,
        source: Option<&str>,
        request_id: &str,
    ) -> Result<Pair, PairError> {
        let rank = self.rank(request_id);
        let bare = hosts::bare(host);
        let mut params = json!({
            "do_remote_prefill": true,
            "do_remote_decode": false,
            "remote_engine_id": hosts::join(bare, self.prefill.handshake),
            "remote_block_ids": [],
            "remote_host": bare,
            "remote_port": self.prefill.handshake,
            "remote_notify_port": self.prefill.notify,
            "remote_dp_rank": rank,
            "remote_dp_rank_override": true,
            "remote_handshake_port": self.prefill.handshake,
            "transfer_id": transfer(request_id),
            "tp_size": self.tensor_ranks,
            "remote_dp_size": self.data_ranks,
        });
        self.spread(&mut params, &self.prefill_hosts).await;
        Ok(Pair {
            prefill: self.prefill(peers, body, api, (host, source), request_id).await?,
            decode: edit(body, &[Edit::set(&[PARAMS], &params.to_string())])?,
            prefill_rank: self.rank_header(rank),
        })
    }

    /// The other side's pods, where there are several.
    async fn spread(&self, params: &mut Value, hosts: &[String]) {
        if hosts.is_empty() {
            return;
        }
        params["remote_hosts"] = json!(self.resolver.resolve(hosts).await);
        if self.local_data_ranks > 0 {
            params["remote_dp_size_local"] = json!(self.local_data_ranks);
        }
    }
}

/// MoRI-IO knows its messages by this prefix.
fn transfer(request_id: &str) -> String {
    format!("tx{request_id}")
}

fn raw(value: &Value) -> Result<Box<RawValue>, EditError> {
    // A value always becomes JSON.
    to_raw_value(value).map_err(|_| EditError::NotAnObject)
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::resolver::Timing;

    fn moriio(data_ranks: u16) -> Moriio {
        let timing = Timing {
            fresh: Duration::from_secs(30),
            deadline: Duration::from_secs(5),
        };
        Moriio {
            is_parallel: true,
            patience: Duration::from_secs(30),
            own_host: "10.0.0.1".to_owned(),
            decode: Ports {
                handshake: 6301,
                notify: 61005,
            },
            prefill: Ports {
                handshake: 6401,
                notify: 61105,
            },
            tensor_ranks: 1,
            data_ranks,
            local_data_ranks: 2,
            prefill_hosts: vec!["10.0.1.1".to_owned(), "10.0.1.2".to_owned()],
            decode_hosts: Vec::new(),
            resolver: Resolver::new(timing, &Registry::new()).expect("new names"),
        }
    }

    const RANKS: [(&str, u16, u16); 3] = [
        ("a", 4, 3),
        ("request-1", 16, 6),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 7, 1),
    ];

    /// Digests from Python's `hashlib.blake2s`.
    #[test]
    fn the_rank_is_the_digests_remainder() {
        for (id, ranks, rank) in RANKS {
            assert_eq!(moriio(ranks).rank(id), rank, "{id}");
        }
        assert_eq!(moriio(1).rank("a"), 0);
    }

    #[tokio::test]
    async fn the_decode_leg_keeps_what_the_prefill_engine_said() {
        let body = [Bytes::from_static(b"{\"prompt\":\"p\"}")];
        let said = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
        let moriio = moriio(4);
        let answer = said("{\"remote_dp_rank\":3,\"remote_block_ids\":[1,2],\"transfer_id\":\"txother\"}");
        let (leg, rank) = moriio.decode(&body, Some(&answer), "a").await.expect("an object");
        let leg: Value = serde_json::from_slice(&leg.concat()).expect("JSON");
        assert_eq!(
            (rank, &leg[PARAMS]),
            (
                3,
                &json!({
                    "remote_dp_rank": 3, "remote_dp_rank_override": true, "remote_block_ids": [1, 2],
                    "transfer_id": "txother", "remote_notify_port": 61005, "remote_handshake_port": 6301,
                    "remote_dp_size": 4, "remote_hosts": ["10.0.1.1", "10.0.1.2"], "remote_dp_size_local": 2
                })
            )
        );
        // A rank that is none is not taken.
        let (_, rank) = moriio
            .decode(&body, Some(&said("{\"remote_dp_rank\":4}")), "a")
            .await
            .expect("an object");
        assert_eq!(rank, moriio.rank("a"));
    }
}
