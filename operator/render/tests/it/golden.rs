//! All objects of the paths with both proxies, byte for byte.

use crate::support::rendered;

fn golden(name: &str, spec: &str) {
    insta::assert_snapshot!(name, rendered(spec).to_yaml());
}

#[test]
fn optimized_baseline_with_envoy() {
    golden(
        "optimized-baseline-envoy",
        "{path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}}",
    );
}

#[test]
fn optimized_baseline_with_the_built_in_proxy() {
    golden(
        "optimized-baseline-builtin",
        "{path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}, \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn simulated_with_envoy() {
    golden(
        "simulated-envoy",
        "{path: simulated, pathVersion: v1, model: {name: Qwen/Qwen3-32B}}",
    );
}

#[test]
fn simulated_behind_a_gateway() {
    golden(
        "simulated-gateway",
        "{path: simulated, pathVersion: v1, model: {name: Qwen/Qwen3-32B}, router: {mode: Gateway, gateway: \
         {parentRefs: [{name: inference-gateway, namespace: gateways, sectionName: https}], \
         hostnames: [models.example.com], match: ModelHeader}}}",
    );
}

#[test]
fn simulated_with_the_built_in_proxy() {
    golden(
        "simulated-builtin",
        "{path: simulated, pathVersion: v1, model: {name: Qwen/Qwen3-32B}, router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn prefill_and_decode_with_envoy() {
    golden(
        "prefill-decode-envoy",
        "{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}}",
    );
}

#[test]
fn groups_with_the_built_in_proxy() {
    golden(
        "wide-expert-parallel-builtin",
        "{path: wide-expert-parallel, pathVersion: v1, model: {uri: 'hf://deepseek-ai/DeepSeek-R1-0528'}, \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn encode_engines_with_the_built_in_proxy() {
    golden(
        "encode-disaggregation-builtin",
        "{path: encode-disaggregation, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-VL-32B-Instruct'}, \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn tiers_with_the_built_in_proxy() {
    golden(
        "tiered-prefix-cache-builtin",
        "{path: tiered-prefix-cache, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}, \
         kv: {offload: {filesystem: {claimName: llm-d-kv-cache-storage}}}, router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn shared_memory_with_the_built_in_proxy() {
    golden(
        "p2p-kv-cache-sharing-builtin",
        "{path: p2p-kv-cache-sharing, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}, \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn prefill_and_decode_of_sglang_with_the_built_in_proxy() {
    golden(
        "sglang-prefill-decode-builtin",
        "{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}, engine: {type: Sglang}, \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn claimed_devices_with_the_built_in_proxy() {
    golden(
        "claims-builtin",
        "{path: prefill-decode, pathVersion: v1, model: {uri: 'hf://openai/gpt-oss-120b'}, kv: {transfer: {network: \
         {deviceClassName: mrdma.google.com, matchAttribute: resource.kubernetes.io/pcieRoot}}}, pools: [{name: prefill, \
         accelerator: {deviceClassName: gpu.nvidia.com}}, {name: decode, accelerator: {deviceClassName: gpu.nvidia.com}}], \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn layers_over_two_nodes_with_the_built_in_proxy() {
    golden(
        "pipeline-parallel-builtin",
        "{path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://meta-llama/Llama-3.1-405B-Instruct'}, \
         pools: [{name: decode, parallelism: {tensor: 8, pipeline: 2}, resources: {limits: {memory: 512Gi}}}], \
         router: {proxy: {type: Builtin}}}",
    );
}

#[test]
fn a_mooncake_store_with_the_built_in_proxy() {
    golden(
        "mooncake-builtin",
        "{path: tiered-prefix-cache, pathVersion: v1, model: {uri: 'hf://Qwen/Qwen3-32B'}, kv: {offload: {connector: \
         Mooncake, cpu: 80Gi, mooncake: {master: 'master.mooncake.svc:50051'}}}, router: {proxy: {type: Builtin}}}",
    );
}
