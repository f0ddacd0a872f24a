//! Connector `sglang`: both engines get the same request at the same time and meet at the prefill engine's bootstrap
//! server, in a room of the request's own.
//!
//! Source: llm-d-router `pkg/sidecar/proxy/connector_sglang.go`; SGLang's PD disaggregation. By document only: not run
//! against a real SGLang.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use llmd_openai::{Edit, EditError, edit};

use crate::hosts;

/// Rooms of requests of one nanosecond differ by chance in this many ways.
const CHANCES: i64 = 1000;

/// A room that no other request has: nanoseconds since 1970, and chance.
pub(crate) fn room() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX - CHANCES);
    nanoseconds.saturating_add(fastrand::i64(0..CHANCES))
}

/// The body of both legs: where they meet. `host` is the prefill engine's, as the picker named it.
pub(crate) fn meeting(body: &[Bytes], host: &str, port: u16, room: i64) -> Result<Vec<Bytes>, EditError> {
    let host = serde_json::Value::from(hosts::bare(host)).to_string();
    let (port, room) = (port.to_string(), room.to_string());
    let edits = [
        Edit::set(&["bootstrap_host"], &host),
        Edit::set(&["bootstrap_port"], &port),
        Edit::set(&["bootstrap_room"], &room),
    ];
    edit(body, &edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_are_told_the_same_place() {
        let body = [Bytes::from_static(b"{\"messages\":[],\"stream\":true}")];
        let told = |host: &str| {
            let edited = meeting(&body, host, 8998, 7).expect("an object").concat();
            String::from_utf8(edited).expect("text")
        };
        let place = |host: &str| {
            format!(
                "{{\"messages\":[],\"stream\":true,\"bootstrap_host\":\"{host}\",\"bootstrap_port\":8998,\"bootstrap_room\":7}}"
            )
        };
        assert_eq!(told("10.0.0.1:8000"), place("10.0.0.1"));
        assert_eq!(told("http://prefill-0.pool:8000"), place("prefill-0.pool"));
        assert_eq!(told("[fd00::1]:8000"), place("fd00::1"));
        assert!(room() > 1_700_000_000_000_000_000);
    }
}
