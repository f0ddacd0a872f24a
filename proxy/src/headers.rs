//! Which headers cross a hop (RFC 9110 §7.6).

use std::net::SocketAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Uri, request};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what belongs to one connection only: the listed fields and whatever `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PROXY_CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Turns a client's head into the head that is sent on: origin-form target, `Host` as the client
/// named it, no hop-by-hop fields, the client's address appended to `X-Forwarded-For`.
pub(crate) fn prepare_request(head: &mut request::Parts, peer: SocketAddr) {
    strip_hop_by_hop(&mut head.headers);
    // The body is framed anew; `Expect` was answered by our own server.
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(EXPECT);
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, value);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = path.parse::<Uri>() {
        head.uri = uri;
    }
    head.version = http::Version::HTTP_11;

    let forwarded = match head
        .headers
        .get(X_FORWARDED_FOR)
        .and_then(|value| value.to_str().ok())
    {
        Some(earlier) => format!("{earlier}, {}", peer.ip()),
        None => peer.ip().to_string(),
    };
    if let Ok(value) = HeaderValue::from_str(&forwarded) {
        head.headers.insert(X_FORWARDED_FOR, value);
    }
    head.headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn hop_by_hop_and_connection_named_fields_are_removed() {
        let mut head = parts(
            "/v1/models",
            &[
                ("connection", "close, X-Secret"),
                ("x-secret", "1"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("a", "b"),
            ],
        );
        prepare_request(&mut head, "192.0.2.7:1".parse().unwrap());
        for gone in ["connection", "x-secret", "te", "upgrade"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(head.headers["a"], "b");
        assert_eq!(head.headers["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn absolute_form_becomes_origin_form_with_host() {
        let mut head = parts(
            "http://llm.example:8080/v1/models?x=1",
            &[("x-forwarded-for", "198.51.100.1")],
        );
        prepare_request(&mut head, "192.0.2.7:1".parse().unwrap());
        assert_eq!(head.uri, "/v1/models?x=1");
        assert_eq!(head.headers["host"], "llm.example:8080");
        assert_eq!(head.headers["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
    }
}
