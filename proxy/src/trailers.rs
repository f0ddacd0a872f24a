//! Trailers of requests: the fields behind a body that go on to a target.
//!
//! Only HTTP/2 targets get them. HTTP/1.1 knows them in chunked bodies alone, so a held body would have to be
//! framed worse for fields that no engine of that protocol reads; whoever passes a message on may leave them out
//! (RFC 9110 §6.5.1).

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE,
    EXPECT, HOST, HeaderName, MAX_FORWARDS, RANGE, SET_COOKIE,
};
use llmd_openai::header::is_routing_output;

use crate::headers::{SAID_BY_HOPS, strip_hop_by_hop};

/// Fields that decide how a message is framed, where it goes, who sent it or how it is read. They are decided by
/// the head; whoever merges trailers into it must not find others.
const OF_THE_HEAD: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    RANGE,
    SET_COOKIE,
];

/// What of a client's trailers goes on; `None` when nothing does.
pub(crate) fn prepare(mut trailers: HeaderMap) -> Option<HeaderMap> {
    strip_hop_by_hop(&mut trailers);
    for name in OF_THE_HEAD.iter().chain(&SAID_BY_HOPS) {
        trailers.remove(name);
    }
    let outputs: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_routing_output(name.as_str()))
        .cloned()
        .collect();
    for name in outputs {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn what_belongs_into_a_head_is_left_out() {
        let trailers = of(&[
            ("x-checksum", "1"),
            ("authorization", "Bearer k"),
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("host", "h"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-gateway-destination-endpoint", "192.0.2.1:8000"),
            ("x-prefiller-host-port", "192.0.2.1:8000"),
        ]);
        assert_eq!(prepare(trailers), Some(of(&[("x-checksum", "1")])));
        assert_eq!(prepare(of(&[("te", "trailers")])), None);
    }
}
