//! The routing sidecar before a decode engine: it has prompts prefilled elsewhere first.
//! Source: llm-d guides v0.8, `pd-disaggregation`; llm-d-router `cmd/pd-sidecar`.

use std::collections::BTreeMap;
use std::ops::Range;

use k8s_openapi::api::core::v1::{Container, ContainerPort, SecurityContext};

use llmd_crds::{EngineType, Role};

use super::super::pod::{LAST_WORDS, Timing, container_security, env_field, http_probe, port, resources};
use crate::names;
use crate::options::RenderOptions;
use crate::validated::{ValidatedDeployment, ValidatedPool};

/// Bodies are passed on as they come; prompts are held until a prefill engine has them.
const REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "64Mi")];
const LIMITS: [(&str, &str); 1] = [("memory", "1Gi")];

/// A native sidecar: it begins before the engine and ends after it.
pub(super) fn container(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    options: &RenderOptions,
) -> Container {
    let ranks = deployment.routed_ports();
    let quantities = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    let ports = ports(ranks.clone());
    let first = ports
        .first()
        .and_then(|port| port.name.clone())
        .unwrap_or_default();
    Container {
        name: "routing-proxy".to_owned(),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        image: Some(options.engine_image("llmd")),
        args: Some(args(deployment, pool, ranks.len())),
        // By it the sidecar knows requests that were meant for another pod.
        env: Some(vec![env_field("POD_IP", "status.podIP")]),
        ports: Some(ports),
        resources: resources(&quantities(&REQUESTS), &quantities(&LIMITS)),
        // The engine's own probe says nothing about the way to it.
        readiness_probe: Some(http_probe(
            "/health",
            &first,
            &Timing {
                initial: 0,
                period: 5,
                timeout: 2,
                failures: 3,
            },
        )),
        restart_policy: Some("Always".to_owned()),
        security_context: Some(SecurityContext {
            run_as_non_root: Some(true),
            run_as_user: options.run_as_user,
            ..container_security()
        }),
        ..Container::default()
    }
}

fn args(deployment: &ValidatedDeployment, pool: &ValidatedPool, ranks: usize) -> Vec<String> {
    let connector = match (pool.engine.kind, pool.role) {
        (EngineType::Sglang, _) => "sglang",
        // nothing is prefilled elsewhere, blocks come from peers
        (_, Role::Both) => "offloading",
        _ => "nixlv2",
    };
    let mut args = vec![
        "sidecar".to_owned(),
        format!("--port={}", names::ENGINE_PORT),
        format!("--model-server-port={}", names::INNER_ENGINE_PORT),
        format!("--kv-connector={connector}"),
        "--secure-serving=false".to_owned(),
    ];
    if deployment.kv.shares_memory() {
        if connector == "nixlv2" {
            args.push("--enable-p2p-pull".to_owned());
        }
        args.push(format!("--p2p-connector-port={}", names::PEERS_PORT));
    }
    if deployment.encodes() {
        args.push("--ec-connector=ec-nixl".to_owned());
    }
    if ranks > 1 {
        args.push(format!("--data-parallel-size={ranks}"));
        args.push("--enable-prefiller-sampling".to_owned());
    }
    args
}

fn ports(numbers: Range<i32>) -> Vec<ContainerPort> {
    if numbers.len() == 1 {
        return vec![port("sidecar", numbers.start)];
    }
    let first = numbers.start;
    numbers
        .map(|number| port(&format!("rank{}", number - first), number))
        .collect()
}
