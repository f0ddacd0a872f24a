//! The flags with their defaults (llm-d-router `cmd/pd-sidecar`, v0.9), sorted by topic.

use llmd_process::pflag::FlagSet;

/// Flags that only say more about another one, and how that one is written.
pub(super) const DEPENDENT: [(&str, &str, &str); 4] = [
    ("inference-pool", "enable-ssrf-protection", "true"),
    ("pool-group", "enable-ssrf-protection", "true"),
    ("mooncake-bootstrap-port", "kv-connector", "mooncake"),
    ("enable-p2p-pull", "kv-connector", "nixlv2"),
];

/// All flags of the role.
pub fn flag_set() -> FlagSet {
    FlagSet::new()
        .int("port", 8000, "first port that is listened on")
        .int("model-server-port", 8200, "first port of the engine on this host")
        .int("vllm-port", 8200, "deprecated name of model-server-port")
        .int("data-parallel-size", 1, "ranks: listeners port.. lead to the engine's ports model-server-port..")
        .string("kv-connector", "nixlv2", "how blocks move from prefill to decode engines: nixlv2, sglang, mooncake, offloading or shared-storage")
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
        .int("mooncake-bootstrap-port", 8998, "port of Mooncake's bootstrap servers; env MOONCAKE_BOOTSTRAP_PORT")
        .int("p2p-connector-port", 7777, "port of the first rank's OffloadingConnector tier; env P2P_CONNECTOR_PORT")
        .bool("enable-p2p-pull", false, "engines with nixlv2 have an OffloadingConnector tier, too, and pull from x-kv-cache-source-host-port")
        .string("ec-connector", "", "how embeddings move from encode engines: ec-nixl or ec-example; empty asks none")
        .bool("enable-ssrf-protection", false, "only pods of --inference-pool may be named as engines; needs to get, list and watch pods and inferencepools")
        .string("enable-tls", "", "comma list of engines that speak TLS: prefiller, decoder, encoder")
        .string("tls-insecure-skip-verify", "", "comma list of engines whose certificates are not checked: prefiller, decoder, encoder")
        .int("decode-chunk-size", 0, "tokens per request to the decode engine (chat completions); 0 asks once for all")
        .string("metrics-cert-dir", "", "directory with tls.crt and tls.key: the metrics page is served over TLS")
        .bool("tracing", false, "spans over OTLP; OTEL_* variables as usual")
        .bool("moriio-write-mode", false, "engines write blocks by MoRI-IO; with kv-connector nixlv2")
        .bool("moriio-parallel-dispatch", false, "both legs at once; needs moriio-write-mode")
        .string("moriio-local-pod-ip", "", "this pod as prefill engines reach it, an address or a name; env POD_IP")
        .int("moriio-decode-handshake-port", 6301, "where decode engines wait for prefill engines")
        .int("moriio-decode-notify-port", 61005, "where decode engines are told of written blocks")
        .int("moriio-prefill-handshake-port", 6301, "where prefill engines wait for decode engines")
        .int("moriio-prefill-notify-port", 61005, "where prefill engines are told")
        .int("moriio-tp-size", 1, "tensor-parallel ranks of the engines")
        .int("moriio-dp-size", 1, "data-parallel ranks of the engines")
        .int("moriio-dp-size-local", 0, "of them in one pod, where a group has several pods")
        .string("moriio-remote-hosts", "", "comma list of the prefill engines' pods")
        .string("moriio-decode-hosts", "", "comma list of the decode engines' pods")
        .duration("moriio-parallel-decode-wait-timeout", "30s", "longest wait for the prefill leg beside a decode leg")
        .bool("enable-speculative-prefill", false, "after a chat with the header x-speculative-prefill: true, have its engine compute the beginning of the next turn")
}
