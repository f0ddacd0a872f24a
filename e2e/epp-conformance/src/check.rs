//! Compares what came with what must come, in words that say what is wrong.
//!
//! [`rules`] hold for every stream, whatever a case says; [`request`] and [`response`] are what a case says.

pub mod request;
pub mod response;
pub mod rules;

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::Value;

use crate::case::{Expected, Match, MatchRule, Profile, Reject, Variant, substitute};
use crate::exchange::Resolve;
use crate::transcript::{DROPPED, find, set_headers};
use crate::wire::ImmediateResponse;

/// What is wrong; empty when all is well.
pub type Failures = Vec<String>;

/// Names of members and of calls, for expectations that refer to them.
pub struct Names<'a> {
    /// Looks up `${name}`.
    pub resolve: Resolve<'a>,
    /// The members' addresses, in order.
    pub members: &'a [(String, String)],
}

impl Names<'_> {
    /// The address of a member, or one that is made from others by `${x}`.
    fn address(&self, name: &str) -> Result<String, String> {
        if name.contains("${") {
            return substitute(name, &self.resolve).map_err(|error| format!("{error:#}"));
        }
        (self.resolve)(name).ok_or_else(|| format!("the case names `{name}`, which is nobody"))
    }
}

/// The first accepted alternative without failures, or the failures of the first.
pub fn either<T>(
    expected: &Expected<T>,
    profile: Profile,
    check: impl Fn(&T) -> Failures,
) -> Result<Option<Variant>, Failures> {
    let mut first = None;
    for (variant, alternative) in expected.accepted(profile) {
        let failures = check(alternative);
        if failures.is_empty() {
            return Ok(variant);
        }
        let named = failures.into_iter().map(|failure| match variant {
            Some(variant) => format!("{failure} (expected of {variant:?})"),
            None => failure,
        });
        first.get_or_insert_with(|| named.collect::<Failures>());
    }
    Err(first.unwrap_or_default())
}

/// Compares one text.
fn text(what: &str, actual: &str, expected: &Match, names: &Names<'_>) -> Failures {
    let rule = match expected {
        Match::Is(wanted) => {
            return match substitute(wanted, &names.resolve) {
                Ok(wanted) if wanted == actual => Vec::new(),
                Ok(wanted) => vec![format!("{what} is `{actual}`, not `{wanted}`")],
                Err(error) => vec![format!("{what}: {error:#}")],
            };
        }
        Match::Rule(rule) => rule,
    };
    let failure = match rule {
        MatchRule::Starts(start) => {
            (!actual.starts_with(start)).then(|| format!("{what} `{actual}` does not begin with `{start}`"))
        }
        MatchRule::Contains(parts) => parts
            .iter()
            .find(|part| !actual.contains(*part))
            .map(|part| format!("{what} `{actual}` has no `{part}`")),
        MatchRule::Either(parts) => (!parts.iter().any(|part| actual.contains(part)))
            .then(|| format!("{what} `{actual}` has none of {parts:?}")),
        MatchRule::Member(members) => {
            let addresses: Result<Vec<String>, String> =
                members.iter().map(|member| names.address(member)).collect();
            match addresses {
                Ok(addresses) => (!addresses.iter().any(|address| address == actual))
                    .then(|| format!("{what} `{actual}` is none of {members:?}")),
                Err(error) => Some(error),
            }
        }
        MatchRule::Base64(wanted) => {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(actual)
                .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(actual));
            let decoded = decoded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            match (decoded, substitute(wanted, &names.resolve)) {
                (Ok(decoded), Ok(wanted)) if decoded == wanted => None,
                (decoded, wanted) => Some(format!("{what} `{actual}` is {decoded:?}, not {wanted:?}")),
            }
        }
        MatchRule::Present(_) => actual.is_empty().then(|| format!("{what} is empty")),
    };
    failure.into_iter().collect()
}

/// Compares headers that are set; `None`: not set.
fn headers(
    set: &[(String, String)],
    expected: &BTreeMap<String, Option<Match>>,
    names: &Names<'_>,
) -> Failures {
    let mut failures = Vec::new();
    for (name, wanted) in expected {
        match (find(set, name), wanted) {
            (None, None) => {}
            (None, Some(_)) => failures.push(format!("header {name} is not set")),
            (Some(actual), None) => {
                failures.push(format!("header {name} is set to `{actual}`; it must not be set"));
            }
            (Some(actual), Some(wanted)) => {
                failures.extend(text(&format!("header {name}"), actual, wanted, names));
            }
        }
    }
    failures
}

/// Compares values of dynamic metadata; JSON `null`: not there.
fn metadata(
    actual: impl Fn(&str, &str) -> Option<Value>,
    expected: &BTreeMap<String, BTreeMap<String, Value>>,
    names: &Names<'_>,
) -> Failures {
    let mut failures = Vec::new();
    for (namespace, keys) in expected {
        for (key, wanted) in keys {
            let wanted = resolve_json(wanted, names);
            match (actual(namespace, key), &wanted) {
                (None, Value::Null) => {}
                (Some(actual), Value::Null) => {
                    failures.push(format!(
                        "metadata {namespace}/{key} is {actual}; it must not be there"
                    ));
                }
                (None, wanted) => {
                    failures.push(format!("metadata {namespace}/{key} is not there, not {wanted}"));
                }
                (Some(actual), wanted) if equal(&actual, wanted) => {}
                (Some(actual), wanted) => {
                    failures.push(format!("metadata {namespace}/{key} is {actual}, not {wanted}"));
                }
            }
        }
    }
    failures
}

/// JSON with `${name}` replaced in keys and text.
fn resolve_json(value: &Value, names: &Names<'_>) -> Value {
    let text = |text: &str| substitute(text, &names.resolve).unwrap_or_else(|error| error.to_string());
    match value {
        Value::String(inner) => Value::String(text(inner)),
        Value::Array(items) => items.iter().map(|item| resolve_json(item, names)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, item)| (text(key), resolve_json(item, names)))
            .collect(),
        other => other.clone(),
    }
}

/// Equal, numbers to six digits: scores are sums of floats.
fn equal(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() < 1e-6
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Compares an immediate response.
fn reject(actual: &ImmediateResponse, expected: &Reject, names: &Names<'_>) -> Failures {
    let mut failures = Vec::new();
    let status = actual.status.as_ref().map_or(0, |status| status.code);
    if status != i32::from(expected.status) {
        failures.push(format!("the status is {status}, not {}", expected.status));
    }
    let body = String::from_utf8_lossy(&actual.body);
    if let Some(wanted) = &expected.body {
        failures.extend(text("the body", &body, wanted, names));
    }
    let set = set_headers(actual.headers.as_ref());
    match (find(&set, DROPPED), &expected.reason) {
        (None, None) => {}
        (Some(actual), Some(wanted)) if actual == wanted => {}
        (actual, wanted) => failures.push(format!(
            "{DROPPED} is {}, not {}",
            actual.unwrap_or("not set"),
            wanted.as_deref().unwrap_or("unset")
        )),
    }
    failures
}

/// Bytes in short.
fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN {
        format!("`{text}`… ({} bytes)", bytes.len())
    } else {
        format!("`{text}`")
    }
}
