//! `agent-identity`: takes the session header of well-known agents as the request's flow and session.
//!
//! | parameter | default |
//! |---|---|
//! | `additionalSessionHeaders[]` | none; looked at before the built-in ones |
//!
//! Built in, in this order: `x-claude-code-session-id`, `x-session-affinity` (opencode), `session-id` and `session_id`
//! (Codex). A fairness header of the client wins over all of them.

use std::sync::Arc;

use llmd_epp_api::attribute::AGENT_IDENTITY;
use llmd_epp_api::plugin::{DataProducer, RequestHeaderProcessor};
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Headers, InferenceRequest, Plugin, PluginType, Rejection,
    SessionId, Stability,
};
use llmd_openai::header;
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "agent-identity";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Alpha,
    default_producer_of: &[AGENT_IDENTITY],
    build: |context| {
        let identity = Arc::new(AgentIdentity::new(context)?);
        Ok(Plugin {
            header_processor: Some(identity.clone()),
            producer: Some(identity),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    additional_session_headers: Vec<String>,
}

struct AgentIdentity {
    /// Lower case, the first one that is sent wins.
    headers: Vec<String>,
    identity: AttributeKey<SessionId>,
}

impl AgentIdentity {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let parameters: Parameters = context.parameters()?;
        let mut headers = Vec::new();
        for (index, name) in parameters.additional_session_headers.iter().enumerate() {
            let name = name.trim().to_ascii_lowercase();
            if name.is_empty() {
                let field = format!("additionalSessionHeaders[{index}]");
                return Err(BuildError::value(&field, "must not be empty"));
            }
            headers.push(name);
        }
        headers.extend(header::AGENT_SESSIONS.map(str::to_owned));
        Ok(Self {
            headers,
            identity: context.produces_for_all(AGENT_IDENTITY)?,
        })
    }

    fn session<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
        let mut named = self.headers.iter().filter_map(|name| headers.get(name));
        named.find(|session| !session.is_empty())
    }
}

impl RequestHeaderProcessor for AgentIdentity {
    fn process(&self, request: &mut InferenceRequest) -> Result<(), Rejection> {
        let flow = header::canonical_or_alias(header::FAIRNESS_ID, |name| request.headers.get(name));
        if flow.is_none_or(str::is_empty)
            && let Some(session) = self.session(&request.headers)
        {
            request.objective.fairness_id = session.into();
        }
        Ok(())
    }
}

impl DataProducer for AgentIdentity {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        let Some(named) = self.session(&cycle.request.headers) else {
            return;
        };
        cycle.attributes.fill(self.identity, |identity, _| {
            identity.value.clear();
            identity.value.push_str(named);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error, produced};

    /// Flow and session of a request with these headers.
    fn identity(parameters: Value, headers: &[(&str, &str)]) -> (String, Option<String>) {
        let mut pool = Pool::of(1);
        for (name, value) in headers {
            pool.request.headers.push(name, value.as_bytes());
        }
        let plugin = build(&PLUGIN, parameters.clone());
        let processor = plugin.header_processor.unwrap();
        processor.process(&mut pool.request).unwrap();
        let flow = pool.request.objective.fairness_id.to_string();
        let of = (AGENT_IDENTITY, TYPE);
        let session = produced::<SessionId, _>(&PLUGIN, parameters, of, &pool, |session| {
            session.map(|session| session.value.clone())
        });
        (flow, session)
    }

    fn of(session: &str) -> (String, Option<String>) {
        (session.to_owned(), Some(session.to_owned()))
    }

    #[test]
    fn built_in_headers_are_looked_at_in_order() {
        let headers = [
            ("session_id", "codex-old"),
            ("session-id", "codex"),
            ("x-session-affinity", "opencode"),
            ("X-Claude-Code-Session-Id", "claude"),
        ];
        for (sent, session) in [(1, "codex-old"), (2, "codex"), (3, "opencode"), (4, "claude")] {
            assert_eq!(identity(Value::Null, &headers[..sent]), of(session));
        }
        assert_eq!(identity(Value::Null, &[]), ("default-flow".to_owned(), None));
        assert_eq!(
            identity(Value::Null, &[("session-id", "")]),
            ("default-flow".to_owned(), None)
        );
    }

    #[test]
    fn additional_headers_come_first() {
        let parameters = json!({"additionalSessionHeaders": ["X-Our-Agent"]});
        let headers = [("x-claude-code-session-id", "claude"), ("x-our-agent", "ours")];
        assert_eq!(identity(parameters, &headers), of("ours"));
        let error = build_error(&PLUGIN, json!({"additionalSessionHeaders": ["a", " "]}));
        assert!(error.contains("additionalSessionHeaders[1]"), "{error}");
    }

    #[test]
    fn a_flow_that_the_client_names_stays() {
        let headers = [
            ("x-gateway-inference-fairness-id", "tenant"),
            ("session-id", "codex"),
        ];
        let mut request = Pool::of(1).request;
        for (name, value) in headers {
            request.headers.push(name, value.as_bytes());
        }
        request.objective.fairness_id = "tenant".into();
        let plugin = build(&PLUGIN, Value::Null);
        plugin.header_processor.unwrap().process(&mut request).unwrap();
        assert_eq!(&*request.objective.fairness_id, "tenant");
    }
}
