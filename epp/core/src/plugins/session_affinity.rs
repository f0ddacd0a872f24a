//! Which endpoint a session is bound to: what the session filters and the session scorer share.
//!
//! | parameter | default |
//! |---|---|
//! | `strategy` | `encoded_endpoint_header`; or `session_id` |
//! | `encodedEndpointHeaderConfig.header` | `x-session-token` |
//! | `sessionIdConfig.sources[]` | `[{header: x-session-id}]`; each has `header`, or `attribute` and its `producer`; the first that names a session |
//! | `sessionIdConfig.evictionTtlSeconds` | 300 since the last request, above 0 |
//! | `sessionIdConfig.evictionSweepSeconds` | 10, above 0 |
//! | `profileName` | the profile whose endpoint is bound; the primary one |
//!
//! `encoded_endpoint_header`: the response tells the client its endpoint, base64 of `namespace/name`, and later requests
//! bring it. `session_id`: this process remembers the endpoint of a session's first request until it leaves the pool.

mod sessions;
mod token;

use std::sync::Arc;
use std::time::Duration;

use llmd_epp_api::plugin::{EndpointObserver, PreRequest, Reserve};
use llmd_epp_api::{BuildContext, BuildError, Cycle, Plugin};
use llmd_openai::header;
use serde::Deserialize;

use sessions::{Sessions, Source};
use token::Token;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    strategy: Strategy,
    encoded_endpoint_header_config: Option<HeaderConfig>,
    session_id_config: Option<SessionConfig>,
    profile_name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    #[default]
    EncodedEndpointHeader,
    SessionId,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct HeaderConfig {
    header: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SessionConfig {
    sources: Vec<SourceConfig>,
    eviction_ttl_seconds: u32,
    eviction_sweep_seconds: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            eviction_ttl_seconds: 300,
            eviction_sweep_seconds: 10,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SourceConfig {
    header: String,
    attribute: String,
    producer: String,
}

/// Tells which endpoint a request's session is bound to.
pub(crate) trait Affinity: Send + Sync {
    /// Index of the bound endpoint among `candidates`.
    fn bound(&self, cycle: &Cycle<'_>, candidates: &[u32]) -> Option<u32>;
}

/// A plugin with what keeps sessions bound, and the affinity to read.
pub(crate) fn build(context: &mut BuildContext<'_>) -> Result<(Plugin, Arc<dyn Affinity>), BuildError> {
    let Parameters {
        strategy,
        encoded_endpoint_header_config,
        session_id_config,
        profile_name,
    } = context.parameters()?;
    let profile = Some(profile_name).filter(|name| !name.is_empty());
    let idle = match strategy {
        Strategy::EncodedEndpointHeader => session_id_config.as_ref().map(|_| "sessionIdConfig"),
        Strategy::SessionId => encoded_endpoint_header_config
            .as_ref()
            .map(|_| "encodedEndpointHeaderConfig"),
    };
    if let Some(field) = idle {
        let name = &context.name.name;
        let warning = format!("plugin '{name}': parameters.{field} has no effect with this strategy");
        context.state.warnings.push(warning);
    }
    match strategy {
        Strategy::EncodedEndpointHeader => {
            let config = encoded_endpoint_header_config.unwrap_or_default();
            let name = match config.header.trim() {
                "" => header::SESSION_TOKEN.to_owned(),
                name => name.to_ascii_lowercase(),
            };
            let token = Arc::new(Token::new(name, profile));
            let plugin = Plugin {
                pre_request: Some(token.clone() as Arc<dyn PreRequest>),
                ..Plugin::default()
            };
            Ok((plugin, token))
        }
        Strategy::SessionId => {
            let config = session_id_config.unwrap_or_default();
            let sessions = Arc::new(sessions(context, &config, profile)?);
            let plugin = Plugin {
                reserve: Some(sessions.clone() as Arc<dyn Reserve>),
                observer: Some(sessions.clone() as Arc<dyn EndpointObserver>),
                ..Plugin::default()
            };
            Ok((plugin, sessions))
        }
    }
}

fn sessions(
    context: &mut BuildContext<'_>,
    config: &SessionConfig,
    profile: Option<String>,
) -> Result<Sessions, BuildError> {
    for (field, seconds) in [
        ("sessionIdConfig.evictionTtlSeconds", config.eviction_ttl_seconds),
        (
            "sessionIdConfig.evictionSweepSeconds",
            config.eviction_sweep_seconds,
        ),
    ] {
        if seconds == 0 {
            return Err(BuildError::value(field, "must be greater than 0"));
        }
    }
    let mut sources = Vec::new();
    for (index, source) in config.sources.iter().enumerate() {
        sources.push(source.resolve(context, index)?);
    }
    if sources.is_empty() {
        sources.push(Source::Header(header::SESSION_ID.to_owned()));
    }
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Ok(Sessions::new(
        sources,
        profile,
        seconds(config.eviction_ttl_seconds),
        seconds(config.eviction_sweep_seconds),
    ))
}

impl SourceConfig {
    fn resolve(&self, context: &mut BuildContext<'_>, index: usize) -> Result<Source, BuildError> {
        use llmd_epp_api::Need;
        use llmd_epp_api::attribute::{AGENT_IDENTITY, SESSION_ID};
        let wrong = |field: &str, reason: String| {
            let path = format!("sessionIdConfig.sources[{index}].{field}");
            Err(BuildError::value(&path, reason))
        };
        match (self.header.trim(), self.attribute.as_str()) {
            ("", "") => wrong("header", "set it or attribute".to_owned()),
            (name, "") if self.producer.is_empty() => Ok(Source::Header(name.to_ascii_lowercase())),
            (_, "") => wrong("producer", "belongs to an attribute; remove it".to_owned()),
            ("", attribute) => {
                let Some(attribute) = [SESSION_ID, AGENT_IDENTITY]
                    .into_iter()
                    .find(|known| *known == attribute)
                else {
                    let reason = format!("is neither {SESSION_ID} nor {AGENT_IDENTITY}");
                    return wrong("attribute", reason);
                };
                let key = context.consumes(attribute, Some(&self.producer), Need::Required)?;
                Ok(Source::Attribute(key))
            }
            (_, _) => wrong("attribute", "cannot be set together with header".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
