//! The router pod: Endpoint Picker, and Envoy beside it unless the built-in proxy serves.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, PodSpec, PodTemplateSpec, Service, ServiceAccount,
    ServicePort, ServiceSpec, Volume,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xxhash_rust::xxh64::Xxh64;

use super::disruption::{budget, spread};
use super::meta::{epp_name, labels, map, metadata, serving_selector};
use super::pod::{
    LAST_WORDS, Timing, container_security, env_field, grpc_probe, mount, pod_security, port, pull_secrets,
    resources,
};
use super::{envoy, has_pool};
use crate::names;
use crate::object::Object;
use crate::options::RenderOptions;
use crate::validated::{ValidatedDeployment, ValidatedProxy};

/// Time for open streams at the end (llm-d-router chart).
const GRACE_SECONDS: i64 = 130;
const COMPONENT: &str = "epp";

pub(super) fn service_account(deployment: &ValidatedDeployment) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(deployment, epp_name(deployment), COMPONENT),
        ..ServiceAccount::default()
    }
}

/// What the Endpoint Picker watches, in its own namespace only.
pub(super) fn role(deployment: &ValidatedDeployment) -> Role {
    let read = |groups: &[&str], resources: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(own(groups)),
            resources: Some(own(resources)),
            verbs: own(&["get", "list", "watch"]),
            ..PolicyRule::default()
        }
    };
    Role {
        metadata: metadata(deployment, epp_name(deployment), COMPONENT),
        rules: Some(vec![
            read(&[""], &["pods"]),
            read(&["inference.networking.k8s.io"], &["inferencepools"]),
            read(
                &["llm-d.ai", "inference.networking.x-k8s.io"],
                &["inferenceobjectives", "inferencemodelrewrites"],
            ),
        ]),
    }
}

pub(super) fn role_binding(deployment: &ValidatedDeployment) -> RoleBinding {
    RoleBinding {
        metadata: metadata(deployment, epp_name(deployment), COMPONENT),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: epp_name(deployment),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: epp_name(deployment),
            namespace: Some(deployment.namespace.clone()),
            ..Subject::default()
        }]),
    }
}

pub(super) fn config_map(deployment: &ValidatedDeployment) -> ConfigMap {
    ConfigMap {
        metadata: metadata(deployment, epp_name(deployment), COMPONENT),
        data: Some(map([(names::EPP_CONFIG_FILE, &deployment.router.config)])),
        ..ConfigMap::default()
    }
}

pub(super) fn service(deployment: &ValidatedDeployment) -> Service {
    let service_port = |name: &str, number: i32, target: &str, protocol: Option<&str>| ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(target.to_owned())),
        app_protocol: protocol.map(str::to_owned),
        ..ServicePort::default()
    };
    let mut ports = vec![
        service_port(
            "grpc-ext-proc",
            names::EXT_PROC_PORT,
            "grpc",
            Some("kubernetes.io/h2c"),
        ),
        service_port("http-metrics", names::METRICS_PORT, "metrics", None),
    ];
    if deployment.router.proxy.gateway().is_none() {
        ports.push(service_port("http", names::SERVICE_PORT, "http-8081", None));
    }
    Service {
        metadata: metadata(deployment, epp_name(deployment), COMPONENT),
        spec: Some(ServiceSpec {
            selector: Some(selector(deployment)),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn selector(deployment: &ValidatedDeployment) -> std::collections::BTreeMap<String, String> {
    map([
        (names::DEPLOYMENT, &deployment.name),
        ("app.kubernetes.io/component", COMPONENT),
    ])
}

/// The router's workload, and before it the budget of its pods.
pub(super) fn workload(deployment: &ValidatedDeployment, options: &RenderOptions) -> [Object; 2] {
    let workload = workload_of(deployment, options);
    let pods = LabelSelector {
        match_labels: Some(selector(deployment)),
        ..LabelSelector::default()
    };
    let budget = budget(&workload.metadata, pods);
    [
        Object::PodDisruptionBudget(Box::new(budget)),
        Object::Deployment(Box::new(workload)),
    ]
}

fn workload_of(deployment: &ValidatedDeployment, options: &RenderOptions) -> Deployment {
    let mut volumes = vec![config_volume("config", epp_name(deployment))];
    // A sidecar ends after the Endpoint Picker, which ends when its streams have: Envoy would cut them at SIGTERM.
    let mut sidecars = Vec::new();
    if let ValidatedProxy::Envoy { image, .. } = &deployment.router.proxy {
        sidecars.push(envoy::sidecar(image.as_deref(), options));
        volumes.push(config_volume("proxy-config", envoy::config_map_name(deployment)));
    }
    Deployment {
        metadata: metadata(deployment, epp_name(deployment), COMPONENT),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: LabelSelector {
                match_labels: Some(selector(deployment)),
                ..LabelSelector::default()
            },
            // Load and prefix history are per process, so two pickers at once know less than one; but without the
            // overlap every change of the router would be an outage.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(deployment, COMPONENT)),
                    annotations: Some(map([(names::CONFIG_HASH, &config_hash(deployment))])),
                    ..ObjectMeta::default()
                }),
                spec: Some(PodSpec {
                    containers: vec![container(deployment, options)],
                    init_containers: (!sidecars.is_empty()).then_some(sidecars),
                    service_account_name: Some(epp_name(deployment)),
                    image_pull_secrets: pull_secrets(&deployment.image_pull_secrets),
                    security_context: Some(pod_security(options)),
                    topology_spread_constraints: Some(spread(LabelSelector {
                        match_labels: Some(selector(deployment)),
                        ..LabelSelector::default()
                    })),
                    termination_grace_period_seconds: Some(GRACE_SECONDS),
                    volumes: Some(volumes),
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// Changes with the files that the pod reads once, at its start: a changed file replaces the pod.
fn config_hash(deployment: &ValidatedDeployment) -> String {
    let mut hash = Xxh64::new(0);
    hash.update(deployment.router.config.as_bytes());
    hash.update(envoy::bootstrap_text(deployment).unwrap_or_default().as_bytes());
    format!("{:016x}", hash.digest())
}

fn config_volume(name: &str, config_map: String) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map,
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn container(deployment: &ValidatedDeployment, options: &RenderOptions) -> Container {
    let router = &deployment.router;
    let mut ports = vec![
        port("grpc", names::EXT_PROC_PORT),
        port("grpc-health", names::HEALTH_PORT),
        port("metrics", names::METRICS_PORT),
    ];
    if router.proxy == ValidatedProxy::Builtin {
        ports.push(port("http-8081", names::PROXY_PORT));
    }
    Container {
        name: COMPONENT.to_owned(),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        image: Some(router.image.clone().unwrap_or_else(|| options.image("llmd-epp"))),
        args: Some(args(deployment, options)),
        env: Some(vec![
            env_field("NAMESPACE", "metadata.namespace"),
            env_field("POD_NAME", "metadata.name"),
        ]),
        ports: Some(ports),
        resources: resources(&router.requests, &router.limits),
        liveness_probe: Some(grpc_probe(
            "liveness",
            names::HEALTH_PORT,
            &Timing {
                initial: 5,
                period: 10,
                timeout: 1,
                failures: 3,
            },
        )),
        // While it drains it is not `readiness`, but still serves: Kubernetes then sends it the traffic of a Service
        // that has no other pod yet.
        readiness_probe: Some(grpc_probe(
            "serving",
            names::HEALTH_PORT,
            &Timing {
                initial: 0,
                period: 2,
                timeout: 1,
                failures: 3,
            },
        )),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![mount("config", "/config", true)]),
        ..Container::default()
    }
}

fn args(deployment: &ValidatedDeployment, options: &RenderOptions) -> Vec<String> {
    let mut args = Vec::new();
    if has_pool(deployment, options) {
        args.push(format!("--pool-name={}", deployment.name));
        args.push(format!("--pool-namespace={}", deployment.namespace));
        args.push("--pool-group=inference.networking.k8s.io".to_owned());
    } else {
        let selector: Vec<String> = serving_selector(deployment)
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        args.push(format!("--endpoint-selector={}", selector.join(",")));
        let ports: Vec<String> = deployment.routed_ports().map(|port| port.to_string()).collect();
        args.push(format!("--endpoint-target-ports={}", ports.join(",")));
    }
    args.push(format!("--config-file=/config/{}", names::EPP_CONFIG_FILE));
    args.push(format!("--grpc-port={}", names::EXT_PROC_PORT));
    args.push(format!("--grpc-health-port={}", names::HEALTH_PORT));
    args.push(format!("--metrics-port={}", names::METRICS_PORT));
    match deployment.router.proxy {
        ValidatedProxy::Builtin => args.push(format!("--proxy-port={}", names::PROXY_PORT)),
        ValidatedProxy::Envoy { .. } => {
            args.push(format!("--drain-envoy-admin-port={}", names::PROXY_ADMIN_PORT));
            // Envoy asks on the port that it uses.
            args.push("--health-checking=true".to_owned());
        }
        ValidatedProxy::Gateway(_) => {}
    }
    let mut flags = std::collections::BTreeMap::from([
        ("metrics-endpoint-auth".to_owned(), "false".to_owned()),
        ("tracing".to_owned(), "false".to_owned()),
        ("zap-encoder".to_owned(), "json".to_owned()),
    ]);
    flags.extend(deployment.router.flags.clone());
    args.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
    args
}
