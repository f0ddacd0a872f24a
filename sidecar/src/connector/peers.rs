//! Engines that give blocks of a prompt which they computed before: the tier of vLLM's `OffloadingConnector`.
//!
//! Source: llm-d-router `pkg/sidecar/proxy/connector_p2p.go`; vLLM `OffloadingConnector`.

use bytes::Bytes;
use llmd_openai::{Edit, EditError, edit};
use serde_json::{Value, json};
use uuid::Uuid;

use super::PARAMS;
use crate::hosts;

/// Where engines' tiers listen, and whether this sidecar's engine can pull from them.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// Port of the first rank's tier; the other ranks' follow.
    pub(crate) port: u16,
    /// Ranks of an engine.
    pub(crate) ranks: u16,
    /// Port of the first rank as the pool's endpoints name it.
    pub(crate) first_port: u16,
    /// Whether the engines here have the tier.
    pub(crate) can_pull: bool,
}

impl Peers {
    /// Port of the tier of the rank that `endpoint` names.
    pub(crate) fn tier_of(&self, endpoint: &str) -> u16 {
        let port = hosts::port(endpoint).unwrap_or(self.first_port);
        let rank = port
            .checked_sub(self.first_port)
            .filter(|rank| *rank < self.ranks);
        self.port.saturating_add(rank.unwrap_or(0))
    }

    /// What tells an engine to pull from `source`; its id is the puller's own.
    pub(crate) fn source(&self, source: &str) -> Value {
        json!({
            "kv_request_id": Uuid::new_v4().to_string(),
            "remote_host": hosts::bare(source),
            "remote_port": self.tier_of(source),
        })
    }

    /// The source of a prefill leg: none where the prefill engine is it itself.
    pub(crate) fn source_for(&self, prefiller: &str, source: Option<&str>) -> Option<Value> {
        let source = source.filter(|source| hosts::strip_scheme(source) != hosts::strip_scheme(prefiller))?;
        Some(self.source(source))
    }

    /// The body of a request that is decoded here alone and pulls from `source`.
    pub(crate) fn pulling(&self, body: &[Bytes], source: &str) -> Result<Vec<Bytes>, EditError> {
        let params = json!({ "remote_kv_source": self.source(source) }).to_string();
        edit(body, &[Edit::set(&[PARAMS], &params)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        Peers {
            port: 7777,
            ranks: 4,
            first_port: 8000,
            can_pull: true,
        }
    }

    #[test]
    fn each_rank_has_its_tier() {
        for (endpoint, port) in [
            ("10.0.0.2:8000", 7777),
            ("http://10.0.0.2:8003", 7780),
            ("10.0.0.2:8004", 7777),
            ("10.0.0.2:7000", 7777),
            ("name", 7777),
        ] {
            assert_eq!(peers().tier_of(endpoint), port, "{endpoint}");
        }
    }

    #[test]
    fn nobody_pulls_from_itself() {
        let source = |prefiller, source| peers().source_for(prefiller, Some(source));
        assert_eq!(source("10.0.0.2:8000", "http://10.0.0.2:8000"), None);
        let other = source("10.0.0.2:8000", "10.0.0.2:8001").expect("another rank");
        assert_eq!(
            (&other["remote_host"], &other["remote_port"]),
            (&json!("10.0.0.2"), &json!(7778))
        );
        let body = [Bytes::from_static(b"{\"kv_transfer_params\":{\"mine\":1}}")];
        let pulling = |source| peers().pulling(&body, source).expect("an object").concat();
        let told: Value = serde_json::from_slice(&pulling("[fd00::2]:8002")).expect("JSON");
        let source = &told["kv_transfer_params"]["remote_kv_source"];
        assert_eq!(
            (&source["remote_host"], &source["remote_port"]),
            (&json!("fd00::2"), &json!(7779))
        );
        assert_eq!(
            told["kv_transfer_params"].as_object().map(serde_json::Map::len),
            Some(1)
        );
    }
}
