//! Headers that name engines: `host:port`, repeated or in a comma list.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::HeaderMap;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// Longest look-up of a name.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Why an engine has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("{0:?} is no host:port")]
    Malformed(String),
    #[error("{0:?} has no address")]
    Unknown(String),
    #[error("looking {0:?} up took more than {LOOK_UP:?}")]
    Deadline(String),
}

/// The entries of all headers of this name, in order.
pub(crate) fn of(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).into_iter();
    let entries = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    let entries = entries.map(str::trim).filter(|host| !host.is_empty());
    entries.map(str::to_owned).collect()
}

/// `host:port` without a scheme before it.
pub(crate) fn strip_scheme(endpoint: &str) -> &str {
    endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest)
}

/// The host alone, an IPv6 address without its brackets.
pub(crate) fn bare(endpoint: &str) -> &str {
    let endpoint = strip_scheme(endpoint);
    let has_port =
        endpoint.ends_with(|last: char| last.is_ascii_digit()) && endpoint.parse::<Ipv6Addr>().is_err();
    let host = endpoint
        .rsplit_once(':')
        .filter(|_| has_port)
        .map_or(endpoint, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

/// The port, if there is one.
pub(crate) fn port(endpoint: &str) -> Option<u16> {
    strip_scheme(endpoint).rsplit_once(':')?.1.parse().ok()
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}

/// The address of `host:port`; a scheme before it is passed over, as upstream does.
pub(crate) async fn resolve(host: &str) -> Result<SocketAddr, HostError> {
    let bare = strip_scheme(host);
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    if bare
        .rsplit_once(':')
        .is_none_or(|(_, port)| port.parse::<u16>().is_err())
    {
        return Err(HostError::Malformed(host.to_owned()));
    }
    let found = timeout(LOOK_UP, lookup_host(bare)).await;
    let mut addresses = found
        .map_err(|_| HostError::Deadline(host.to_owned()))?
        .map_err(|_| HostError::Unknown(host.to_owned()))?;
    addresses
        .next()
        .ok_or_else(|| HostError::Unknown(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn entries_come_from_every_header() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("10.0.0.1:8000, 10.0.0.2:8000"));
        headers.append("x-a", HeaderValue::from_static("c:1,,"));
        assert_eq!(of(&headers, "x-a"), ["10.0.0.1:8000", "10.0.0.2:8000", "c:1"]);
    }

    #[test]
    fn endpoints_are_taken_apart() {
        for (endpoint, host, number) in [
            ("10.0.0.1:8000", "10.0.0.1", Some(8000)),
            ("http://a.b:8000", "a.b", Some(8000)),
            ("[fd00::1]:8000", "fd00::1", Some(8000)),
            ("name", "name", None),
        ] {
            assert_eq!((bare(endpoint), port(endpoint)), (host, number), "{endpoint}");
        }
        assert_eq!(bare("fd00::1"), "fd00::1");
        assert_eq!(
            (join("fd00::1", 1), join("a", 1)),
            ("[fd00::1]:1".to_owned(), "a:1".to_owned())
        );
    }

    #[tokio::test]
    async fn names_and_addresses_are_resolved_and_the_rest_is_named() {
        assert_eq!(resolve("http://127.0.0.1:81").await.expect("valid").port(), 81);
        assert_eq!(resolve("localhost:82").await.expect("known").port(), 82);
        let error = resolve("no-port").await.expect_err("refused").to_string();
        assert!(error.contains("\"no-port\""), "{error}");
    }
}
