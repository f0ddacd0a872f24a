//! The mistakes, by invariant; PD, WIDE, ONE, TIERED and CONFIG stand for what is written in front of them.

/// Number of the invariant, what is written, the field that is named, a part of the fix.
pub(super) struct Mistake(
    pub(super) u8,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
);

pub(super) const MISTAKES: &[Mistake] = &[
    // the pool's selector finds the pods
    Mistake(
        1,
        "{PD, commonMetadata: {labels: {llm-d.ai/inference-serving: 'false'}}}",
        "commonMetadata.labels",
        "prefix of your own",
    ),
    Mistake(
        1,
        "{PD, commonMetadata: {labels: {llmd.dev/deployment: other}}}",
        "commonMetadata.labels",
        "prefix of your own",
    ),
    Mistake(
        1,
        "{PD, commonMetadata: {labels: {llm-d.ai/role: decode}}}",
        "commonMetadata.labels",
        "prefix of your own",
    ),
    Mistake(
        1,
        "{PD, router: {epp: {flags: {endpoint-selector: a=b}}}}",
        "router.epp.flags",
        "set by the operator",
    ),
    // every rank is a target
    Mistake(
        2,
        "{ONE, pools: [{name: decode, parallelism: {data: 16, dataLocal: 16}}]}",
        "parallelism.dataLocal",
        "lower it, or set loadBalancing to Hybrid",
    ),
    Mistake(
        2,
        "{WIDE, pools: [{name: decode, parallelism: {dataLocal: 4}}]}",
        "parallelism.dataLocal",
        "the same dataLocal",
    ),
    Mistake(
        2,
        "{WIDE, pools: [{name: prefill, loadBalancing: Hybrid}]}",
        "parallelism.dataLocal",
        "the same dataLocal and loadBalancing",
    ),
    Mistake(
        2,
        "{WIDE, router: {epp: {flags: {endpoint-target-ports: '8000'}}}}",
        "router.epp.flags",
        "set by the operator",
    ),
    // one port for all roles
    Mistake(
        3,
        "{PD, engine: {args: {port: '9000'}}}",
        "engine.args",
        "use the field of the resource",
    ),
    Mistake(
        3,
        "{PD, pools: [{name: prefill, engine: {extraArgs: [--port=8100]}}]}",
        "pools[0].engine.extraArgs",
        "use the field of the resource",
    ),
    Mistake(
        3,
        "{PD, pools: [{name: prefill, engine: {args: {host: 127.0.0.1}}}]}",
        "engine.args",
        "use the field of the resource",
    ),
    // connectors of engines and sidecar
    Mistake(
        4,
        "{PD, engine: {args: {kv-transfer-config: '{}'}}}",
        "engine.args",
        "kv",
    ),
    Mistake(
        4,
        "{PD, pools: [{name: decode, engine: {extraArgs: ['--kv-transfer-config={}']}}]}",
        "engine.extraArgs",
        "kv",
    ),
    Mistake(
        4,
        "{PD, pools: [{name: decode, engine: {extraArgs: ['--kv_transfer_config={}']}}]}",
        "engine.extraArgs",
        "kv",
    ),
    Mistake(
        4,
        "{PD, engine: {args: {ec-transfer-config: '{}'}}}",
        "engine.args",
        "use the field of the resource",
    ),
    Mistake(
        4,
        "{ONE, pools: [{name: decode, role: Decode}]}",
        "pools[0].role",
        "add one, or leave this role out",
    ),
    Mistake(
        4,
        "{ONE, pools: [{name: decode, role: Prefill}]}",
        "pools[0].role",
        "add one, or leave this role out",
    ),
    Mistake(
        4,
        "{ONE, pools: [{name: decode, role: Encode}]}",
        "pools[0].role",
        "add one, or leave this role out",
    ),
    Mistake(
        4,
        "{PD, pools: [{name: more, role: Both}]}",
        "pools[0].role",
        "set Decode",
    ),
    Mistake(
        4,
        "{ONE, kv: {transfer: {backend: UCX}}}",
        "kv.transfer",
        "add such a pool",
    ),
    // the engine behind the sidecar
    Mistake(
        5,
        "{PD, pools: [{name: decode, engine: {extraArgs: [--port, '8000']}}]}",
        "engine.extraArgs",
        "use the field of the resource",
    ),
    Mistake(
        5,
        "{WIDE, pools: [{name: decode, engine: {args: {data-parallel-supervisor-port: '1'}}}]}",
        "engine.args",
        "use the field of the resource",
    ),
    // block sizes
    Mistake(6, "{PD, engine: {args: {block-size: '64'}}}", "engine.args", "kv"),
    Mistake(
        6,
        "{PD, pools: [{name: prefill, engine: {args: {block-size: '64'}}}]}",
        "engine.args",
        "kv",
    ),
    Mistake(
        6,
        "{PD, pools: [{name: decode, engine: {extraArgs: [--block-size=64]}}]}",
        "engine.extraArgs",
        "kv",
    ),
    Mistake(
        6,
        "{PD, router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: approx-prefix-cache-producer, parameters: {autoTune: false, blockSizeTokens: 64}}]}}}}}",
        "config.inline",
        "leave it out, the engines tell theirs",
    ),
    // names of the model
    Mistake(
        7,
        "{ONE, router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: token-producer, parameters: {modelName: other, vllm: {url: 'http://r:8000'}}}]}}}}}",
        "config.inline",
        "write that name",
    ),
    Mistake(
        7,
        "{ONE, engine: {args: {served-model-name: other}}}",
        "engine.args",
        "model",
    ),
    Mistake(
        7,
        "{ONE, engine: {extraArgs: [--served-model-name, other]}}",
        "engine.extraArgs",
        "model",
    ),
    // hash seeds
    Mistake(
        8,
        "{PD, pools: [{name: decode, engine: {args: {kv-events-config: '{\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:5557\",\"topic\":\"kv@$(POD_IP):8200@a/b\"}'}}}]}",
        "spec.pools[0].engine.args",
        "write kv@$(POD_IP):8000@a/b",
    ),
    Mistake(
        8,
        "{ONE, engine: {args: {kv-events-config: '{\"publisher\":\"zmq\",\"topic\":\"kv@$(POD_IP):8000@other\"}'}}}",
        "engine.args",
        "write kv@$(POD_IP):8000@a/b",
    ),
    Mistake(
        8,
        "{ONE, engine: {args: {kv-events-config: zmq}}}",
        "engine.args",
        "is not JSON",
    ),
    Mistake(
        9,
        "{TIERED, pools: [{name: decode, engine: {env: [{name: PYTHONHASHSEED, value: '1'}]}}, {name: more}]}",
        "engine.env",
        "leave it out",
    ),
    Mistake(
        9,
        "{PD, kv: {offload: {cpu: 1Gi}}, pools: [{name: prefill, engine: {env: [{name: PYTHONHASHSEED, value: '7'}]}}]}",
        "engine.env",
        "leave it out",
    ),
    // lengths of prompts
    Mistake(
        10,
        "{ONE, engine: {args: {max-model-len: '262144'}}, router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: approx-prefix-cache-producer, parameters: {maxPrefixTokensToMatch: 40960}}]}}}}}",
        "config.inline",
        "raise it to 262144",
    ),
    Mistake(
        10,
        "{ONE, pools: [{name: decode, engine: {args: {max-model-len: '65536'}}}], router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: approx-prefix-cache-producer, parameters: {maxPrefixTokensToMatch: 8192}}]}}}}}",
        "config.inline",
        "raise it to 65536",
    ),
    // measured throughput
    Mistake(
        11,
        "{ONE, router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: prefix-cache-affinity-filter}]}}}}}",
        "config.inline",
        "measure the engine's own",
    ),
    Mistake(
        11,
        "{ONE, pools: [{name: decode, parallelism: {tensor: 4}}], router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: prefix-cache-affinity-filter}]}}}}}",
        "config.inline",
        "measure the engine's own",
    ),
    // keep-alive
    Mistake(
        12,
        "{PD, engine: {env: [{name: VLLM_HTTP_TIMEOUT_KEEP_ALIVE, value: '5'}]}}",
        "engine.env",
        "leave it out for 120",
    ),
    Mistake(
        12,
        "{PD, pools: [{name: prefill, engine: {env: [{name: VLLM_HTTP_TIMEOUT_KEEP_ALIVE, value: '90'}]}}]}",
        "engine.env",
        "leave it out for 120",
    ),
    Mistake(
        12,
        "{PD, engine: {env: [{name: VLLM_HTTP_TIMEOUT_KEEP_ALIVE, value: never}]}}",
        "engine.env",
        "leave it out for 120",
    ),
    // memory
    Mistake(
        13,
        "{TIERED, kv: {offload: {cpu: 500Gi}}}",
        "resources.limits.memory",
        "or lower kv.offload.cpu",
    ),
    Mistake(
        13,
        "{TIERED, kv: {offload: {cpu: 400Gi}}}",
        "resources.limits.memory",
        "raise this above",
    ),
    Mistake(
        13,
        "{TIERED, pools: [{name: decode, parallelism: {data: 4}}]}",
        "resources.limits.memory",
        "for each of 4 ranks",
    ),
    Mistake(
        13,
        "{PD, kv: {offload: {cpu: 32Gi}}}",
        "resources.limits.memory",
        "raise this above",
    ),
    // parallelism and devices
    Mistake(
        14,
        "{PD, pools: [{name: decode, accelerator: {count: 2}}]}",
        "accelerator.count",
        "must equal parallelism.tensor",
    ),
    Mistake(
        14,
        "{WIDE, pools: [{name: decode, accelerator: {count: 16}}]}",
        "accelerator.count",
        "times the ranks of a pod, which is 8",
    ),
    Mistake(
        14,
        "{WIDE, pools: [{name: decode, parallelism: {dataLocal: 5}}]}",
        "parallelism.dataLocal",
        "must divide",
    ),
    Mistake(
        14,
        "{WIDE, engine: {args: {data-parallel-size: '8'}}}",
        "engine.args",
        "parallelism",
    ),
    Mistake(
        14,
        "{WIDE, engine: {extraArgs: [--tensor-parallel-size=2]}}",
        "engine.extraArgs",
        "parallelism",
    ),
    Mistake(
        14,
        "{ONE, pools: [{name: decode, parallelism: {tensor: 1, expert: true}}]}",
        "parallelism.expert",
        "raise parallelism.data",
    ),
    Mistake(
        14,
        "{WIDE, engine: {extraArgs: [--enable-expert-parallel]}}",
        "engine.extraArgs",
        "parallelism",
    ),
    // time to end
    Mistake(
        15,
        "{PD, engine: {args: {shutdown-timeout: '600'}}}",
        "engine.args",
        "rollout",
    ),
    Mistake(
        15,
        "{PD, engine: {extraArgs: [--shutdown_timeout=600]}}",
        "engine.extraArgs",
        "rollout",
    ),
    Mistake(
        15,
        "{PD, rollout: {drain: 48h}}",
        "rollout.drain",
        "from 1s to 24h",
    ),
    // one picker
    Mistake(
        16,
        "{PD, router: {epp: {flags: {ha-enable-leader-election: 'true'}}}}",
        "router.epp.flags",
        "set by the operator",
    ),
    // the pool's name
    Mistake(
        17,
        "{PD, router: {epp: {flags: {pool-name: other}}}}",
        "router.epp.flags",
        "set by the operator",
    ),
    Mistake(
        17,
        "{PD, router: {epp: {flags: {pool-namespace: other}}}}",
        "router.epp.flags",
        "set by the operator",
    ),
    // names of the router's objects
    Mistake(
        18,
        "{ONE, pools: [{name: epp}]}",
        "pools[0].name",
        "choose another",
    ),
    // equal layouts
    Mistake(
        19,
        "{PD, pools: [{name: prefill, engine: {image: 'a/b:1'}}]}",
        "engine.image",
        "set spec.engine.image",
    ),
    Mistake(
        19,
        "{PD, pools: [{name: decode, engine: {args: {kv-cache-dtype: fp8}}}]}",
        "engine.args",
        "for all pools",
    ),
    Mistake(
        19,
        "{PD, pools: [{name: prefill, engine: {args: {dtype: float16}}}]}",
        "engine.args",
        "for all pools",
    ),
    Mistake(
        19,
        "{PD, pools: [{name: prefill, engine: {args: {attention-backend: FLASHINFER}}}]}",
        "engine.args",
        "for all pools",
    ),
    Mistake(
        19,
        "{PD, pools: [{name: decode, accelerator: {vendor: None}, engine: {type: Simulator}}]}",
        "engine.type",
        "the same type",
    ),
    Mistake(
        19,
        "{ONE, rollout: {strategy: Coherent}}",
        "rollout.strategy",
        "or give pools roles",
    ),
    // lengths of names
    Mistake(
        20,
        "{WIDE, pools: [{name: a-pool-of-thirty-characters-xx, role: Decode, replicas: 10000, parallelism: {data: 16, dataLocal: 8}}]} NAME",
        "pools[0].name",
        "shorten",
    ),
    // what nobody may turn on
    Mistake(
        21,
        "{PD, router: {sidecar: {ssrfProtection: true}}}",
        "router.sidecar",
        "no such field",
    ),
    // numbers that the controller gives to pods
    Mistake(
        22,
        "{WIDE, engine: {env: [{name: LWS_WORKER_INDEX, value: '0'}]}}",
        "engine.env",
        "leave it out",
    ),
    Mistake(
        22,
        "{WIDE, engine: {env: [{name: VLLM_NIXL_SIDE_CHANNEL_PORT, value: '5557'}]}}",
        "engine.env",
        "leave it out",
    ),
    Mistake(
        22,
        "{WIDE, engine: {args: {data-parallel-start-rank: '0'}}}",
        "engine.args",
        "parallelism",
    ),
    // directions of tensor parallelism
    Mistake(
        23,
        "{PD, pools: [{name: decode, parallelism: {tensor: 1}}, {name: prefill, parallelism: {tensor: 2}}]}",
        "pools[0].parallelism.tensor",
        "raise it here, or lower it in pool prefill",
    ),
    Mistake(
        23,
        "{PD, pools: [{name: prefill, parallelism: {tensor: 8}}]}",
        "pools[decode].parallelism.tensor",
        "raise it here",
    ),
    // chunks of the calibration
    Mistake(
        24,
        "{ONE, pools: [{name: decode, engine: {args: {max-num-batched-tokens: '2048'}}}, {name: more}], router: {epp: {config: {inline: {CONFIG, plugins: [{type: queue-scorer}, {type: prefix-cache-affinity-filter, parameters: {peakPrefillThroughput: 20000}}]}}}}}",
        "engine.args",
        "for all pools",
    ),
];
