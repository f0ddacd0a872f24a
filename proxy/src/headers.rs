//! Which requests are refused by their head alone, and which headers cross a hop (RFC 9110 §7.6).

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request};
use hyper::ext::Protocol;

use crate::connection::Client;
use crate::reply::LocalReply;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What clients may say about hops before them; only a trusted hop may.
pub(crate) const SAID_BY_HOPS: [HeaderName; 8] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-real-ip"),
];

/// In a head's extensions: the client reads trailers (`TE: trailers`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakesTrailers;

/// Refuses what two servers could read differently, and methods that a gateway has no use for. hyper has refused
/// folded lines, lengths that differ and unknown codings by then, and reads a message with both a length
/// and `chunked` by the latter, as its connection's last.
///
/// # Errors
/// 400, 405 or 501 with what is wrong.
pub(crate) fn check_request(head: &request::Parts) -> Result<(), LocalReply> {
    let bad = |message: &str| Err(LocalReply::error(StatusCode::BAD_REQUEST, message));
    if let Some(protocol) = head.extensions.get::<Protocol>() {
        // What may be asked for was turned into a GET by then.
        let message = format!("protocol {} is not spoken; websocket is", protocol.as_str());
        return Err(LocalReply::error(StatusCode::NOT_IMPLEMENTED, &message));
    }
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        let message = format!("method {} is not allowed", head.method);
        return Err(LocalReply::error(StatusCode::METHOD_NOT_ALLOWED, &message));
    }
    if head.uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return bad("the request target has user information; send credentials in a header");
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => bad("the request has more than one Host header"),
        // RFC 9112 §3.2.
        (None, _) if head.version == Version::HTTP_11 => bad("the request has no Host header"),
        _ => Ok(()),
    }
}

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
/// named it, no hop-by-hop fields, the client's address in `X-Forwarded-For`.
pub(crate) fn prepare_request(head: &mut request::Parts, client: Client, trusts_forwarded: bool) {
    if head.headers.get(TE).is_some_and(|te| te == "trailers") {
        head.extensions.insert(TakesTrailers);
    }
    strip_hop_by_hop(&mut head.headers);
    // The body is framed anew; `Expect` was answered by our own server.
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(EXPECT);
    // A target with an authority overrides `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
    if let Some(authority) = head.uri.authority()
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, value);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = path.parse::<Uri>() {
        head.uri = uri;
    }
    head.version = Version::HTTP_11;
    // HTTP/2 may split cookies, HTTP/1.1 may not (RFC 9113 §8.2.3).
    join(&mut head.headers, &COOKIE, "; ", None);

    if !trusts_forwarded {
        for name in &SAID_BY_HOPS {
            head.headers.remove(name);
        }
    }
    let scheme = if client.is_secure { "https" } else { "http" };
    let address = client.peer.ip().to_canonical();
    join(
        &mut head.headers,
        &X_FORWARDED_FOR,
        ", ",
        Some(&address.to_string()),
    );
    head.headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static(scheme));
    if head.headers.contains_key(FORWARDED) {
        // Who reads it must find this hop in it as well (RFC 7239 §4).
        let hop = if address.is_ipv6() {
            format!("for=\"[{address}]\";proto={scheme}")
        } else {
            format!("for={address};proto={scheme}")
        };
        join(&mut head.headers, &FORWARDED, ", ", Some(&hop));
    }
}

/// Makes one line of all lines of a field, with `last` behind them. Lines that are no text are left out.
fn join(headers: &mut HeaderMap, name: &HeaderName, separator: &str, last: Option<&str>) {
    let lines = headers.get_all(name);
    if last.is_none() && lines.iter().nth(1).is_none() {
        return;
    }
    let values = lines.iter().filter_map(|value| value.to_str().ok());
    let joined: Vec<&str> = values.chain(last).collect();
    if let Ok(value) = HeaderValue::from_str(&joined.join(separator)) {
        headers.insert(name.clone(), value);
    }
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

    fn client(peer: &str) -> Client {
        Client {
            peer: peer.parse().unwrap(),
            is_secure: false,
        }
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
        prepare_request(&mut head, client("192.0.2.7:1"), false);
        for gone in ["connection", "x-secret", "te", "upgrade"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(head.headers["a"], "b");
        assert_eq!(head.headers["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn the_authority_of_a_target_becomes_host() {
        let mut head = parts(
            "http://llm.example:8080/v1/models?x=1",
            &[("host", "other.example")],
        );
        prepare_request(&mut head, client("192.0.2.7:1"), false);
        assert_eq!(head.uri, "/v1/models?x=1");
        assert_eq!(head.headers["host"], "llm.example:8080");
    }

    #[test]
    fn what_hops_say_is_believed_only_where_they_are_trusted() {
        let said = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.2"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "198.51.100.1"),
            ("forwarded", "for=198.51.100.1"),
        ];
        let mut head = parts("/x", &said);
        prepare_request(&mut head, client("[2001:db8::7]:1"), true);
        assert_eq!(
            head.headers["x-forwarded-for"],
            "198.51.100.1, 198.51.100.2, 2001:db8::7"
        );
        assert_eq!(head.headers["x-forwarded-proto"], "https");
        assert_eq!(
            head.headers["forwarded"],
            "for=198.51.100.1, for=\"[2001:db8::7]\";proto=http"
        );

        let mut head = parts("/x", &said);
        prepare_request(&mut head, client("192.0.2.7:1"), false);
        assert_eq!(head.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(head.headers["x-forwarded-proto"], "http");
        assert!(!head.headers.contains_key("forwarded") && !head.headers.contains_key("x-real-ip"));
    }

    #[test]
    fn split_cookies_become_one_line() {
        let mut head = parts("/x", &[("cookie", "a=1"), ("cookie", "b=2")]);
        prepare_request(&mut head, client("192.0.2.7:1"), false);
        assert_eq!(
            head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2"]
        );
    }

    #[test]
    fn ambiguous_heads_and_useless_methods_are_refused() {
        let status = |head: &request::Parts| check_request(head).map_err(|reply| reply.status.as_u16());
        assert_eq!(status(&parts("/x", &[("host", "h")])), Ok(()));
        assert_eq!(status(&parts("/x", &[])), Err(400));
        assert_eq!(status(&parts("/x", &[("host", "h"), ("host", "h")])), Err(400));
        assert_eq!(status(&parts("http://a:b@h/x", &[("host", "h")])), Err(400));
        let mut old = parts("/x", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(status(&old), Ok(()));
        for method in [Method::CONNECT, Method::TRACE] {
            let mut head = parts("/x", &[("host", "h")]);
            head.method = method;
            assert_eq!(status(&head), Err(405));
        }
    }
}
