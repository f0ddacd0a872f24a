//! Names of the HTTP headers that the router reads, writes or guards (lower case, as HTTP/2 wants them).

/// Flow identity of a request.
pub const FAIRNESS_ID: &str = "x-llm-d-inference-fairness-id";
/// Name of the `InferenceObjective` of a request.
pub const OBJECTIVE: &str = "x-llm-d-inference-objective";
/// Target model, read before the rewrite rules.
pub const MODEL_NAME_REWRITE: &str = "x-llm-d-model-name-rewrite";
/// Wanted time to first token in ms.
pub const SLO_TTFT_MS: &str = "x-llm-d-slo-ttft-ms";
/// Wanted time per output token in ms.
pub const SLO_TPOT_MS: &str = "x-llm-d-slo-tpot-ms";
/// Frames per second of a video, for token estimates.
pub const VIDEO_FPS: &str = "x-llm-d-video-fps";
/// Seconds of a video, for token estimates.
pub const VIDEO_DURATION_SECONDS: &str = "x-llm-d-video-duration-seconds";
/// `WxH` of a video, for token estimates.
pub const VIDEO_RESOLUTION: &str = "x-llm-d-video-resolution";

/// Deprecated alias of [`FAIRNESS_ID`].
pub const FAIRNESS_ID_ALIAS: &str = "x-gateway-inference-fairness-id";
/// Deprecated alias of [`OBJECTIVE`].
pub const OBJECTIVE_ALIAS: &str = "x-gateway-inference-objective";
/// Deprecated alias of [`MODEL_NAME_REWRITE`].
pub const MODEL_NAME_REWRITE_ALIAS: &str = "x-gateway-model-name-rewrite";
/// Deprecated alias of [`SLO_TTFT_MS`].
pub const SLO_TTFT_MS_ALIAS: &str = "x-slo-ttft-ms";
/// Deprecated alias of [`SLO_TPOT_MS`].
pub const SLO_TPOT_MS_ALIAS: &str = "x-slo-tpot-ms";

/// Key of the subset hint in the filter metadata; as a header it is only protected.
pub const DESTINATION_SUBSET: &str = "x-gateway-destination-endpoint-subset";
/// The endpoint the router chose, `host:port`, several separated by commas.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The endpoint that answered.
pub const DESTINATION_SERVED: &str = "x-gateway-destination-endpoint-served";
/// Why a request was dropped.
pub const REQUEST_DROPPED_REASON: &str = "x-llm-d-request-dropped-reason";
/// Body length.
pub const CONTENT_LENGTH: &str = "content-length";

/// Identity of a request.
pub const REQUEST_ID: &str = "x-request-id";
/// Path before a rewrite, second choice after `:path`.
pub const ORIGINAL_PATH: &str = "x-original-path";
/// Path before a rewrite, third choice.
pub const FORWARDED_PATH: &str = "x-forwarded-path";
/// `host:port` of the prefill endpoint.
pub const PREFILLER: &str = "x-prefiller-host-port";
/// Encoder endpoints, separated by commas.
pub const ENCODERS: &str = "x-encoder-hosts-ports";
/// Rank endpoint behind the primary port.
pub const DATA_PARALLEL: &str = "x-data-parallel-host-port";
/// Peer to pull KV blocks from.
pub const KV_CACHE_SOURCE: &str = "x-kv-cache-source-host-port";
/// `prefer: if-available` asks for a conditional decode.
pub const PREFER: &str = "prefer";
/// Selects a profile in `header-profile-handler`.
pub const EPP_PROFILE: &str = "epp-profile";
/// base64 of `namespace/name` of the endpoint of a session.
pub const SESSION_TOKEN: &str = "x-session-token";
/// Session identity for stateful affinity.
pub const SESSION_ID: &str = "x-session-id";
/// Session headers that well-known agents send.
pub const AGENT_SESSIONS: [&str; 4] = [
    "x-claude-code-session-id",
    "x-session-affinity",
    "session-id",
    "session_id",
];
/// Used in `HTTPRoute` matches by body-based routing.
pub const BASE_MODEL_NAME: &str = "x-gateway-base-model-name";
/// Debug marker on every response.
pub const WENT_INTO_RESPONSE_HEADERS: &str = "x-went-into-resp-headers";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state.
pub const TRACESTATE: &str = "tracestate";
/// W3C baggage.
pub const BAGGAGE: &str = "baggage";

/// Canonical names with their deprecated aliases; the canonical one wins when both are sent.
pub const ALIASES: [(&str, &str); 5] = [
    (FAIRNESS_ID, FAIRNESS_ID_ALIAS),
    (OBJECTIVE, OBJECTIVE_ALIAS),
    (MODEL_NAME_REWRITE, MODEL_NAME_REWRITE_ALIAS),
    (SLO_TTFT_MS, SLO_TTFT_MS_ALIAS),
    (SLO_TPOT_MS, SLO_TPOT_MS_ALIAS),
];

/// Headers that the router owns: plugins cannot set them and they are not echoed.
pub const SYSTEM_OWNED: [&str; 18] = [
    FAIRNESS_ID,
    FAIRNESS_ID_ALIAS,
    OBJECTIVE,
    OBJECTIVE_ALIAS,
    MODEL_NAME_REWRITE,
    MODEL_NAME_REWRITE_ALIAS,
    SLO_TTFT_MS,
    SLO_TTFT_MS_ALIAS,
    SLO_TPOT_MS,
    SLO_TPOT_MS_ALIAS,
    VIDEO_FPS,
    VIDEO_DURATION_SECONDS,
    VIDEO_RESOLUTION,
    DESTINATION_SUBSET,
    DESTINATION,
    DESTINATION_SERVED,
    REQUEST_DROPPED_REASON,
    CONTENT_LENGTH,
];

/// Routing outputs: they steer sidecars and proxies, so those that clients send are stripped.
pub const ROUTING_OUTPUTS: [&str; 7] = [
    DESTINATION,
    DESTINATION_SERVED,
    DESTINATION_SUBSET,
    PREFILLER,
    ENCODERS,
    DATA_PARALLEL,
    KV_CACHE_SOURCE,
];

/// Whether `name` is in [`SYSTEM_OWNED`], in any letter case.
pub fn is_system_owned(name: &str) -> bool {
    SYSTEM_OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name))
}

/// Whether a client must not send `name`: every `x-gateway-destination-endpoint*` and the other
/// routing outputs, in any letter case.
pub fn is_routing_output(name: &str) -> bool {
    let is_destination = name
        .get(..DESTINATION.len())
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(DESTINATION));
    is_destination
        || ROUTING_OUTPUTS
            .iter()
            .any(|output| output.eq_ignore_ascii_case(name))
}

/// The value of `canonical`, else of its alias, through `get`.
pub fn canonical_or_alias<T>(canonical: &str, get: impl Fn(&str) -> Option<T>) -> Option<T> {
    get(canonical).or_else(|| {
        let (_, alias) = ALIASES.iter().find(|(name, _)| *name == canonical)?;
        get(alias)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_outputs_are_recognised_in_any_case_and_inputs_are_not() {
        for name in [
            "X-Gateway-Destination-Endpoint",
            "x-gateway-destination-endpoint-anything",
            "X-Prefiller-Host-Port",
            "x-encoder-hosts-ports",
            "x-data-parallel-host-port",
            "x-kv-cache-source-host-port",
        ] {
            assert!(is_routing_output(name), "{name}");
        }
        for name in [
            OBJECTIVE,
            FAIRNESS_ID,
            SLO_TTFT_MS,
            SESSION_TOKEN,
            SESSION_ID,
            "x-gateway-destination",
            "ä",
        ] {
            assert!(!is_routing_output(name), "{name}");
        }
    }

    #[test]
    fn system_owned_headers_have_their_aliases() {
        assert!(is_system_owned("X-SLO-TTFT-ms") && is_system_owned("Content-Length"));
        assert!(!is_system_owned(REQUEST_ID) && !is_system_owned(PREFILLER));
        assert!(
            ALIASES
                .iter()
                .all(|(name, alias)| is_system_owned(name) && is_system_owned(alias))
        );
    }

    #[test]
    fn the_canonical_name_wins_over_its_alias() {
        let sent =
            |names: &'static [&str]| move |name: &str| names.iter().find(|sent| **sent == name).copied();
        assert_eq!(
            canonical_or_alias(OBJECTIVE, sent(&[OBJECTIVE_ALIAS, OBJECTIVE])),
            Some(OBJECTIVE)
        );
        assert_eq!(
            canonical_or_alias(OBJECTIVE, sent(&[OBJECTIVE_ALIAS])),
            Some(OBJECTIVE_ALIAS)
        );
        assert_eq!(canonical_or_alias(VIDEO_FPS, sent(&["x-fps"])), None);
    }
}
