//! vLLM's `--kv-transfer-config`: which connector, which role, how long blocks stay.

use std::time::Duration;

use serde::Deserialize;

/// Time for which blocks stay unless somebody asks, in seconds: vLLM's own since 0.22.
const LEASE_SECONDS: f64 = 30.0;

/// Where KV blocks of other engines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connector {
    /// Pairs of engines, blocks pulled by the decoding one once the other has answered.
    Nixl,
    /// Peers below the engines' caches, asked while the other still computes.
    Offloading,
    /// SGLang: both begin at once and meet in a room at the prefill engine's bootstrap server.
    Rooms,
}

impl Connector {
    /// Names that vLLM knows, and what of them is simulated.
    fn named(name: &str) -> Option<Self> {
        match name {
            "NixlConnector" => Some(Self::Nixl),
            _ => None,
        }
    }
}

/// Which side of a transfer an engine may be on (`kv_role`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Role {
    /// Gives blocks.
    #[serde(rename = "kv_producer")]
    Producer,
    /// Takes blocks.
    #[serde(rename = "kv_consumer")]
    Consumer,
    /// Both.
    #[serde(rename = "kv_both")]
    Both,
}

impl Role {
    /// Whether it holds blocks for others.
    pub fn gives(self) -> bool {
        self != Self::Consumer
    }

    /// Whether it reads blocks of others.
    pub fn takes(self) -> bool {
        self != Self::Producer
    }
}

/// What becomes of a request whose blocks do not come (`kv_load_failure_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadFailurePolicy {
    /// It fails with 500.
    #[default]
    Fail,
    /// Its prompt is computed here.
    Recompute,
}

/// Time that blocks take from one engine to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferTime {
    /// Whatever the length.
    pub fixed: Duration,
    /// For each token.
    pub per_token: Duration,
}

impl TransferTime {
    /// Time for `tokens`.
    pub fn of(self, tokens: usize) -> Duration {
        self.fixed
            + self
                .per_token
                .saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX))
    }
}

/// A checked configuration of KV transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvTransferConfig {
    /// How blocks move between engines; `None`: only tiers below this engine are configured.
    pub connector: Option<Connector>,
    /// Side of a transfer.
    pub role: Role,
    /// What becomes of a request whose blocks do not come.
    pub policy: LoadFailurePolicy,
    /// Port on which peers ask, where the connector names one; else the side channel's.
    pub peers: Option<u16>,
    /// Time for which blocks stay unless somebody asks; each sign of life of the reader adds two thirds of it.
    pub lease: Duration,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names, reason = "vLLM's names")]
struct Raw {
    kv_connector: String,
    kv_role: Role,
    #[serde(default)]
    kv_load_failure_policy: LoadFailurePolicy,
    #[serde(default)]
    kv_connector_extra_config: Extra,
}

#[derive(Default, Deserialize)]
struct Extra {
    kv_lease_duration: Option<f64>,
    #[serde(default)]
    secondary_tiers: Vec<Tier>,
    #[serde(default)]
    connectors: Vec<Raw>,
}

/// A tier of the offloading connector; only peers are simulated.
#[derive(Deserialize)]
struct Tier {
    r#type: String,
    port: Option<u16>,
}

/// vLLM's port of a tier of peers (`VLLM_P2P_SIDE_CHANNEL_PORT`).
const PEERS: u16 = 5710;

/// What is simulated as an engine without it: tiers that hold what fell out of the engine's own cache.
const TIERS: [&str; 3] = ["OffloadingConnector", "LMCacheConnectorV1", "LMCacheMPConnector"];

impl Extra {
    fn peers(&self) -> Option<&Tier> {
        self.secondary_tiers.iter().find(|tier| tier.r#type == "p2p")
    }
}

impl KvTransferConfig {
    /// Reads the JSON of the flag. `abort_timeout` is `VLLM_NIXL_ABORT_REQUEST_TIMEOUT` in seconds, which engines
    /// before 0.22 take for the lease; the error is what is wrong and how to mend it.
    pub fn parse(json: &str, abort_timeout: Option<f64>) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(json).map_err(|error| {
            format!("not a KV transfer configuration ({error}); give JSON with kv_connector and kv_role")
        })?;
        let mut config = Self {
            connector: None,
            peers: None,
            role: raw.kv_role,
            policy: raw.kv_load_failure_policy,
            lease: lease(abort_timeout.unwrap_or(LEASE_SECONDS))?,
        };
        config.add(&raw)?;
        if raw.kv_connector == "MultiConnector" {
            for one in &raw.kv_connector_extra_config.connectors {
                config.add(one)?;
            }
        }
        Ok(config)
    }

    /// SGLang's configuration, whose side of a transfer is that of its requests.
    pub fn rooms(role: Role, port: u16) -> Self {
        Self {
            connector: Some(Connector::Rooms),
            role,
            policy: LoadFailurePolicy::Fail,
            peers: Some(port),
            lease: Duration::from_secs_f64(LEASE_SECONDS),
        }
    }

    /// Whether both legs know beforehand under which name the blocks are kept.
    pub fn is_named(&self) -> bool {
        matches!(self.connector, Some(Connector::Offloading | Connector::Rooms))
    }

    fn add(&mut self, raw: &Raw) -> Result<(), String> {
        let name = raw.kv_connector.as_str();
        if let Some(connector) = Connector::named(name) {
            self.connector = Some(connector);
        } else if let Some(tier) = raw.kv_connector_extra_config.peers() {
            if self.connector.is_none() {
                self.connector = Some(Connector::Offloading);
                self.peers = Some(tier.port.unwrap_or(PEERS));
            }
        } else if TIERS.contains(&name) {
            tracing::warn!(
                connector = name,
                "a tier below the simulated engine: it holds nothing here"
            );
        } else if name != "MultiConnector" {
            let known = TIERS.join(", ");
            return Err(format!(
                "kv_connector {name} is not simulated; choose NixlConnector, MultiConnector, {known}"
            ));
        }
        if let Some(seconds) = raw.kv_connector_extra_config.kv_lease_duration {
            self.lease = lease(seconds)?;
        }
        Ok(())
    }

    /// Whether blocks are held for engines that ask.
    pub fn gives(&self) -> bool {
        self.connector.is_some() && self.role.gives()
    }

    /// Whether blocks are read from engines that hold them.
    pub fn takes(&self) -> bool {
        self.connector.is_some() && self.role.takes()
    }
}

fn lease(seconds: f64) -> Result<Duration, String> {
    if (0.001..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!(
            "a lease of {seconds} s is out of range; kv_lease_duration and VLLM_NIXL_ABORT_REQUEST_TIMEOUT take 0.001 to 86400"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_renders_is_read() {
        let plain =
            KvTransferConfig::parse(r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#, None).unwrap();
        assert_eq!(plain.lease, Duration::from_secs(30));
        assert!(plain.gives() && plain.takes());
        let json = r#"{"kv_connector":"MultiConnector","kv_role":"kv_both","kv_load_failure_policy":"recompute",
            "kv_connector_extra_config":{"connectors":[
                {"kv_connector":"NixlConnector","kv_role":"kv_both","kv_connector_extra_config":{"backends":["UCX"],"kv_lease_duration":300}},
                {"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"cpu_bytes_to_use":1}}]}}"#;
        let several = KvTransferConfig::parse(json, Some(480.0)).unwrap();
        assert_eq!(
            (several.connector, several.policy, several.lease),
            (
                Some(Connector::Nixl),
                LoadFailurePolicy::Recompute,
                Duration::from_secs(300)
            )
        );
        let producer = KvTransferConfig::parse(
            r#"{"kv_connector":"NixlConnector","kv_role":"kv_producer"}"#,
            Some(480.0),
        );
        let producer = producer.unwrap();
        assert!(producer.gives() && !producer.takes());
        assert_eq!(producer.lease, Duration::from_secs(480));
    }

    #[test]
    fn what_is_not_simulated_is_refused_by_name() {
        for (json, expected) in [
            ("{}", "kv_connector"),
            (
                r#"{"kv_connector":"FooConnector","kv_role":"kv_both"}"#,
                "FooConnector is not simulated",
            ),
            (
                r#"{"kv_connector":"NixlConnector","kv_role":"both"}"#,
                "kv_producer",
            ),
            (
                r#"{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_connector_extra_config":{"kv_lease_duration":0}}"#,
                "a lease of 0 s",
            ),
        ] {
            let error = KvTransferConfig::parse(json, None).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
