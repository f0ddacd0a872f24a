//! Flags of encodings that engines exchange.

use serde::Deserialize;

use super::ConfigError;

/// Connectors whose members in requests and answers are simulated.
const CONNECTORS: [&str; 2] = ["ECCPUConnector", "ECExampleConnector"];

/// Flags that say how encodings of images, videos and audio come from other engines.
#[derive(Clone, Debug, clap::Args)]
pub struct EncodingArgs {
    /// vLLM's encoder cache configuration as JSON: `ec_connector` and `ec_role`. With it, messages may have media.
    #[arg(long)]
    pub ec_transfer_config: Option<String>,
    /// Host on which other engines ask for encodings, told to them as it is.
    #[arg(long, env = "VLLM_EC_SIDE_CHANNEL_HOST", default_value = "localhost")]
    pub ec_side_channel_host: String,
    /// Port on which other engines ask for encodings; a data-parallel rank adds its number; 0 takes a free one.
    #[arg(long, env = "VLLM_EC_SIDE_CHANNEL_PORT", default_value_t = 5610)]
    pub ec_side_channel_port: u16,
}

/// Which side an engine is on (`ec_role`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum EncodingRole {
    /// Encodes for others.
    #[serde(rename = "ec_producer")]
    Producer,
    /// Takes what others encoded.
    #[serde(rename = "ec_consumer")]
    Consumer,
    /// Both.
    #[serde(rename = "ec_both")]
    Both,
}

/// Checked flags of encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingSettings {
    /// Which side.
    pub role: EncodingRole,
    /// Host of the side channel.
    pub host: String,
    /// Port of the side channel of rank 0.
    pub port: u16,
}

impl EncodingSettings {
    /// Whether others may ask for encodings.
    pub fn gives(&self) -> bool {
        self.role != EncodingRole::Consumer
    }
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names, reason = "vLLM's names")]
struct Raw {
    ec_connector: String,
    ec_role: EncodingRole,
}

impl EncodingArgs {
    pub(super) fn settings(self) -> Result<Option<EncodingSettings>, ConfigError> {
        let Some(json) = self.ec_transfer_config else {
            return Ok(None);
        };
        let wrong = |problem| ConfigError::Json {
            flag: "ec-transfer-config",
            problem,
        };
        let raw: Raw = serde_json::from_str(&json).map_err(|error| {
            wrong(format!(
                "not an encoder cache configuration ({error}); give JSON with ec_connector and ec_role"
            ))
        })?;
        if !CONNECTORS.contains(&raw.ec_connector.as_str()) {
            let known = CONNECTORS.join(", ");
            let name = raw.ec_connector;
            return Err(wrong(format!(
                "ec_connector {name} is not simulated; choose {known}"
            )));
        }
        Ok(Some(EncodingSettings {
            role: raw.ec_role,
            host: self.ec_side_channel_host,
            port: self.ec_side_channel_port,
        }))
    }
}
