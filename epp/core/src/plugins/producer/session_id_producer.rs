//! `session-id-producer`: tells other plugins which session a request belongs to.
//!
//! | parameter | default |
//! |---|---|
//! | `headerName` | `x-session-id` when there are no parameters at all |
//! | `cookieName` | none |
//!
//! Exactly one of them says where the client names its session. A request without it has no session.

use llmd_epp_api::attribute::SESSION_ID;
use llmd_epp_api::plugin::DataProducer;
use llmd_epp_api::{
    AttributeKey, BuildContext, BuildError, Cycle, Headers, Plugin, PluginType, SessionId, Stability,
};
use llmd_openai::header;
use serde::Deserialize;

/// Type name in configurations.
pub const TYPE: &str = "session-id-producer";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[SESSION_ID],
    build: |context| {
        Ok(Plugin {
            producer: Some(std::sync::Arc::new(SessionIdProducer::new(context)?)),
            ..Plugin::default()
        })
    },
};

const COOKIE: &str = "cookie";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    header_name: String,
    cookie_name: String,
}

/// Where a client names its session.
enum Source {
    /// A header, by its lower-case name.
    Header(String),
    Cookie(String),
}

struct SessionIdProducer {
    source: Source,
    session: AttributeKey<SessionId>,
}

impl SessionIdProducer {
    fn new(context: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        let Parameters {
            header_name,
            cookie_name,
        } = context.parameters()?;
        let source = match (header_name.trim(), cookie_name.trim()) {
            ("", "") if context.parameters.is_null() => Source::Header(header::SESSION_ID.to_owned()),
            ("", "") => {
                let reason = "set it or cookieName: a session is named by exactly one of them";
                return Err(BuildError::value("headerName", reason));
            }
            (name, "") => Source::Header(name.to_ascii_lowercase()),
            ("", name) => Source::Cookie(name.to_owned()),
            (_, _) => {
                let reason = "cannot be set together with headerName; remove one of them";
                return Err(BuildError::value("cookieName", reason));
            }
        };
        Ok(Self {
            source,
            session: context.produces(SESSION_ID)?,
        })
    }
}

impl Source {
    fn session<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
        let named = match self {
            Self::Header(name) => headers.get(name).map(str::trim),
            Self::Cookie(name) => headers
                .iter()
                .filter(|(header, _)| *header == COOKIE)
                .filter_map(|(_, value)| std::str::from_utf8(value).ok())
                .find_map(|cookies| cookie(cookies, name)),
        };
        named.filter(|session| !session.is_empty())
    }
}

/// The value of a cookie in a `Cookie` header (RFC 6265); quotes around it are no part of it.
fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value))
}

impl DataProducer for SessionIdProducer {
    fn produce(&self, cycle: &mut Cycle<'_>, _: &[u32]) {
        let Some(named) = self.source.session(&cycle.request.headers) else {
            return;
        };
        cycle.attributes.fill(self.session, |session, _| {
            session.value.clear();
            session.value.push_str(named);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, build_error, produced};

    fn session(parameters: Value, headers: &[(&str, &str)]) -> Option<String> {
        let mut pool = Pool::of(1);
        for (name, value) in headers {
            pool.request.headers.push(name, value.as_bytes());
        }
        produced::<SessionId, _>(&PLUGIN, parameters, (SESSION_ID, TYPE), &pool, |session| {
            session.map(|session| session.value.clone())
        })
    }

    #[test]
    fn a_header_names_the_session_in_any_letter_case() {
        let by_header = || json!({"headerName": " X-My-Session "});
        assert_eq!(
            session(by_header(), &[("x-my-session", " abc ")]).as_deref(),
            Some("abc")
        );
        assert_eq!(session(by_header(), &[("x-my-session", "  ")]), None);
        assert_eq!(session(by_header(), &[("x-session-id", "abc")]), None);
        let by_default = session(Value::Null, &[("X-Session-ID", "abc")]);
        assert_eq!(by_default.as_deref(), Some("abc"));
    }

    #[test]
    fn a_cookie_names_the_session_in_any_cookie_header() {
        let by_cookie = || json!({"cookieName": "llm-d-session"});
        let headers = [
            ("cookie", "a=b; LLM-D-session=no"),
            ("cookie", "x; llm-d-session=\"s=1\"; z=1"),
        ];
        assert_eq!(session(by_cookie(), &headers).as_deref(), Some("s=1"));
        assert_eq!(session(by_cookie(), &[("llm-d-session", "s1")]), None);
        assert_eq!(session(by_cookie(), &[("cookie", "llm-d-session=")]), None);
    }

    #[test]
    fn exactly_one_source_is_named() {
        assert!(build_error(&PLUGIN, json!({})).contains("parameters.headerName"));
        let both = json!({"headerName": "a", "cookieName": "b"});
        assert!(build_error(&PLUGIN, both).contains("parameters.cookieName"));
    }
}
