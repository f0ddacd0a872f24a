//! Data-parallel ranks: their flags, ports and probes.
//! Source: llm-d guides v0.8, `wide-ep-lws`; vLLM `--data-parallel-*`.

use k8s_openapi::api::core::v1::ContainerPort;
use llmd_crds::{EngineType, LoadBalancing};

use super::super::pod::port;
use super::engine_port;
use crate::names;
use crate::validated::{ValidatedDeployment, ValidatedPool};

/// Where the ranks of a group find each other.
const RPC_PORT: i32 = 5555;

/// Whether ranks have ports of their own, and a supervisor beside them that speaks for all of a pod.
pub(super) fn is_supervised(pool: &ValidatedPool) -> bool {
    pool.parallelism.data > 1 && pool.parallelism.balancing == LoadBalancing::External
}

/// The supervisor's port: after those of eight ranks, however many there are.
fn supervisor_port(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> i32 {
    engine_port(deployment, pool) + names::MOST_RANKS
}

/// Flags of parallelism, but for the first rank of the pod, which only the pod knows.
pub(super) fn args(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<String> {
    let parallelism = &pool.parallelism;
    let mut args = Vec::new();
    if parallelism.expert {
        args.push("--enable-expert-parallel".to_owned());
    }
    if parallelism.data == 1 {
        return args;
    }
    args.push(format!("--data-parallel-size={}", parallelism.data));
    args.push(format!("--data-parallel-size-local={}", parallelism.data_local));
    match parallelism.balancing {
        LoadBalancing::External => {
            args.push("--data-parallel-multi-port-external-lb".to_owned());
            let port = supervisor_port(deployment, pool);
            args.push(format!("--data-parallel-supervisor-port={port}"));
        }
        LoadBalancing::Hybrid => args.push("--data-parallel-hybrid-lb".to_owned()),
    }
    if parallelism.nodes() > 1 {
        // set by the controller of LeaderWorkerSets, expanded by the kubelet
        args.push("--data-parallel-address=$(LWS_LEADER_ADDRESS)".to_owned());
        args.push(format!("--data-parallel-rpc-port={RPC_PORT}"));
        if pool.engine.kind == EngineType::Simulator {
            // no shell in our image: the simulator multiplies itself
            args.push("--node-rank=$(LWS_WORKER_INDEX)".to_owned());
        }
    }
    args
}

/// The shell that begins vLLM where the pod has to be asked first: leftovers of a killed engine in shared memory go
/// (llm-d#352), and the pod's number gives its first rank. Arguments come as they are: no text of the resource is read
/// by the shell.
pub(super) fn script(pool: &ValidatedPool) -> String {
    let rank = if pool.parallelism.nodes() > 1 {
        let local = pool.parallelism.data_local;
        format!(r#" --data-parallel-start-rank="$((LWS_WORKER_INDEX * {local}))""#)
    } else {
        String::new()
    };
    format!(r#"rm -rf /dev/shm/*; exec vllm serve "$@"{rank}"#)
}

/// Ports of the engine; `modelserver` where there is one.
pub(super) fn ports(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Vec<ContainerPort> {
    let first = engine_port(deployment, pool);
    if !is_supervised(pool) {
        return vec![port("modelserver", first)];
    }
    let prefix = if deployment.has_sidecar(pool) {
        "vllm-rank"
    } else {
        "rank"
    };
    let mut ports: Vec<ContainerPort> = (0..pool.parallelism.ports())
        .map(|rank| port(&format!("{prefix}{rank}"), first + rank))
        .collect();
    ports.push(port("supervisor", supervisor_port(deployment, pool)));
    ports
}
