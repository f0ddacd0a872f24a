//! Fields of engines that work together: roles, parallelism, KV blocks, rollouts.

use super::{Flip, flip};

const DISAGGREGATED: &str = "{MODEL, path: prefill-decode}";

pub(super) const FLIPS: &[Flip] = &[
    flip(
        "pools[].role",
        "{MODEL, path: prefill-decode, pools: [{name: more, role: Prefill}]}",
        "{MODEL, path: prefill-decode, pools: [{name: more, role: Decode}]}",
    ),
    flip("kv.blockSize", "{MODEL}", "{MODEL, kv: {blockSize: 32}}"),
    flip(
        "pools[].parallelism.data",
        "{MODEL, pools: [{name: decode}]}",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4}}]}",
    ),
    flip(
        "pools[].parallelism.pipeline",
        "{MODEL, pools: [{name: decode, parallelism: {tensor: 2}}]}",
        "{MODEL, pools: [{name: decode, parallelism: {tensor: 2, pipeline: 2}}]}",
    ),
    flip(
        "pools[].parallelism.pipelineLocal",
        "{MODEL, pools: [{name: decode, parallelism: {tensor: 2, pipeline: 4}}]}",
        "{MODEL, pools: [{name: decode, parallelism: {tensor: 2, pipeline: 4, pipelineLocal: 1}}]}",
    ),
    flip(
        "pools[].parallelism.dataLocal",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4}}]}",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4, dataLocal: 2}}]}",
    ),
    flip(
        "pools[].parallelism.expert",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4}}]}",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4, expert: true}}]}",
    ),
    flip(
        "pools[].loadBalancing",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4}}]}",
        "{MODEL, pools: [{name: decode, parallelism: {data: 4}, loadBalancing: Hybrid}]}",
    ),
    flip(
        "security.podSecurity",
        "{MODEL}",
        "{MODEL, security: {podSecurity: Privileged}}",
    ),
    flip(
        "kv.offload.cpu",
        "{MODEL, kv: {offload: {cpu: 8Gi}}}",
        "{MODEL, kv: {offload: {cpu: 9Gi}}}",
    ),
    flip(
        "kv.offload.mooncake.master",
        "{MODEL, kv: {offload: {connector: Mooncake, mooncake: {master: 'a:1'}}}}",
        "{MODEL, kv: {offload: {connector: Mooncake, mooncake: {master: 'b:1'}}}}",
    ),
    flip(
        "kv.offload.mooncake.protocol",
        "{MODEL, kv: {offload: {connector: Mooncake, mooncake: {master: 'a:1'}}}}",
        "{MODEL, kv: {offload: {connector: Mooncake, mooncake: {master: 'a:1', protocol: Rdma}}}}",
    ),
    flip(
        "kv.offload.mooncake.buffer",
        "{MODEL, kv: {offload: {connector: Mooncake, mooncake: {master: 'a:1'}}}}",
        "{MODEL, kv: {offload: {connector: Mooncake, mooncake: {master: 'a:1', buffer: 1Gi}}}}",
    ),
    flip(
        "kv.offload.connector",
        "{MODEL, kv: {offload: {cpu: 8Gi}}}",
        "{MODEL, kv: {offload: {cpu: 8Gi, connector: LMCache}}}",
    ),
    flip(
        "kv.offload.filesystem.claimName",
        "{MODEL, kv: {offload: {cpu: 8Gi, filesystem: {claimName: a}}}}",
        "{MODEL, kv: {offload: {cpu: 8Gi, filesystem: {claimName: b}}}}",
    ),
    flip(
        "kv.offload.filesystem.readThreads",
        "{MODEL, kv: {offload: {cpu: 8Gi, filesystem: {claimName: a}}}}",
        "{MODEL, kv: {offload: {cpu: 8Gi, filesystem: {claimName: a, readThreads: 2}}}}",
    ),
    flip(
        "kv.offload.filesystem.writeThreads",
        "{MODEL, kv: {offload: {cpu: 8Gi, filesystem: {claimName: a}}}}",
        "{MODEL, kv: {offload: {cpu: 8Gi, filesystem: {claimName: a, writeThreads: 2}}}}",
    ),
    flip(
        "kv.offload.filesystem.size",
        "{MODEL, kv: {offload: {cpu: 8Gi, connector: LMCache, filesystem: {claimName: a, size: 1Ti}}}}",
        "{MODEL, kv: {offload: {cpu: 8Gi, connector: LMCache, filesystem: {claimName: a, size: 2Ti}}}}",
    ),
    flip(
        "rollout.strategy",
        "{MODEL, path: prefill-decode, rollout: {strategy: RollingUpdate}}",
        "{MODEL, path: prefill-decode, rollout: {strategy: Coherent}}",
    ),
    flip(
        "kv.transfer.backend",
        DISAGGREGATED,
        "{MODEL, path: prefill-decode, kv: {transfer: {backend: Libfabric}}}",
    ),
    flip(
        "kv.transfer.failurePolicy",
        DISAGGREGATED,
        "{MODEL, path: prefill-decode, kv: {transfer: {failurePolicy: Fail}}}",
    ),
    flip(
        "kv.transfer.network.resourceName",
        DISAGGREGATED,
        "{MODEL, path: prefill-decode, kv: {transfer: {network: {resourceName: rdma/ib}}}}",
    ),
    flip(
        "kv.transfer.network.deviceClassName",
        DISAGGREGATED,
        "{MODEL, path: prefill-decode, kv: {transfer: {network: {deviceClassName: mrdma.google.com}}}}",
    ),
    flip(
        "kv.transfer.network.matchAttribute",
        "{MODEL, path: prefill-decode, kv: {transfer: {network: {deviceClassName: n}}}, pools: [{name: prefill, \
         accelerator: {deviceClassName: a}}, {name: decode, accelerator: {deviceClassName: a}}]}",
        "{MODEL, path: prefill-decode, kv: {transfer: {network: {deviceClassName: n, matchAttribute: a/b}}}, pools: [{name: \
         prefill, accelerator: {deviceClassName: a}}, {name: decode, accelerator: {deviceClassName: a}}]}",
    ),
    flip(
        "kv.transfer.network.count",
        "{MODEL, path: prefill-decode, kv: {transfer: {network: {resourceName: rdma/ib}}}}",
        "{MODEL, path: prefill-decode, kv: {transfer: {network: {resourceName: rdma/ib, count: 8}}}}",
    ),
];
