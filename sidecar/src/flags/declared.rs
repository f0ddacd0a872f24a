//! The flags with their defaults (llm-d-router `cmd/pd-sidecar`, v0.9), sorted by topic.

use llmd_process::pflag::FlagSet;

/// Features of upstream's sidecar that this build does not have, and what they do.
pub(super) const REFUSED: [(&str, &str); 8] = [
    (
        "enable-p2p-pull",
        "pulling blocks from a third engine comes later",
    ),
    (
        "enable-ssrf-protection",
        "a list of allowed prefill engines comes later; strip the routing headers in the gateway",
    ),
    (
        "enable-speculative-prefill",
        "warming up a predicted next turn comes later",
    ),
    ("enable-tls", "TLS towards engines comes later"),
    ("tls-insecure-skip-verify", "TLS towards engines comes later"),
    ("decode-chunk-size", "chunked decode comes later"),
    ("metrics-cert-dir", "TLS on the metrics port comes later"),
    ("tracing", "spans come later"),
];

/// Flags that only say more about another one.
pub(super) const DEPENDENT: [(&str, &str); 4] = [
    ("inference-pool", "--enable-ssrf-protection"),
    ("pool-group", "--enable-ssrf-protection"),
    ("mooncake-bootstrap-port", "--kv-connector=mooncake"),
    ("p2p-connector-port", "--kv-connector=offloading"),
];

/// All flags of the role.
pub fn flag_set() -> FlagSet {
    FlagSet::new()
        .int("port", 8000, "first port that is listened on")
        .int("model-server-port", 8200, "first port of the engine on this host")
        .int("vllm-port", 8200, "deprecated name of model-server-port")
        .int("data-parallel-size", 1, "ranks: listeners port.. lead to the engine's ports model-server-port..")
        .string("kv-connector", "nixlv2", "how blocks move from prefill to decode engines: nixlv2 or sglang")
        .bool("enable-prefiller-sampling", false, "take one of several prefill engines by chance, not the first; env ENABLE_PREFILLER_SAMPLING")
        .int("prefill-max-retries", 0, "how often a prefill engine is asked again after 502, 503 or 504")
        .duration("prefill-retry-backoff", "200ms", "pause before it is asked again")
        .string("prefill-failure", "fallback", "when no prefill engine computes a prompt: fallback (the next of the list, then the decode engine itself) or error (the client is told, as upstream)")
        .int("max-idle-conns-per-host", 1024, "idle connections kept to each engine")
        .bool("secure-serving", true, "TLS on the listeners")
        .bool("secure-proxy", true, "deprecated name of secure-serving")
        .string("cert-path", "", "directory with tls.crt and tls.key, followed; self-signed when empty")
        .string("tls-min-version", "", "lowest TLS version: VersionTLS12 or VersionTLS13")
        .string("tls-cipher-suites", "", "comma list of TLS cipher suites, Go's names")
        .int("metrics-port", 0, "port of the metrics page; 0 has none")
        .duration("drain-timeout", "60s", "longest time for requests in flight after SIGTERM")
        .string("configuration", "", "YAML with flag names as keys; flags come before it")
        .string("configuration-file", "", "file with such YAML")
        .int("v", 2, "log verbosity")
        .shorthand("v", 'v')
        .string("inference-pool", "", "pool whose members may be prefill engines; needs enable-ssrf-protection")
        .string("pool-group", "inference.networking.k8s.io", "API group of this pool")
        .int("mooncake-bootstrap-port", 8998, "port of Mooncake's bootstrap server")
        .int("p2p-connector-port", 7777, "port of the offloading connector")
        .string("ec-connector", "", "how embeddings move from encode engines: ec-nixl or ec-example; empty asks none")
        .bool("enable-p2p-pull", false, "refused, not in this build")
        .bool("enable-ssrf-protection", false, "refused, not in this build")
        .bool("enable-speculative-prefill", false, "refused, not in this build")
        .string("enable-tls", "", "refused, not in this build")
        .string("tls-insecure-skip-verify", "", "refused, not in this build")
        .int("decode-chunk-size", 0, "refused, not in this build")
        .string("metrics-cert-dir", "", "refused, not in this build")
        .bool("tracing", false, "refused, not in this build")
}
