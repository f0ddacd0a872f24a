//! Engine pods: one Deployment per pool.

mod claims;
mod command;
mod connector;
mod egress;
mod encodings;
mod env;
mod group;
pub(super) mod mooncake;
mod offload;
mod probes;
mod ranks;
mod revision;
mod security;
mod sidecar;
mod stages;
mod storage;
mod transfer;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec,
    SecretKeySelector, ServiceAccount, SleepAction, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use llmd_crds::{
    DisaggregatedRole, DisaggregatedSet, DisaggregatedSetSpec, EngineType, LeaderWorkerSet, PodSecurity,
    Role, RoleMetadata, RolloutStrategy, Vendor,
};

use super::disruption::{budget, spread};
use super::images;
use super::meta::{labels, map, metadata};
use super::pod::{self, LAST_WORDS, empty_dir, env_field, mount, pull_secrets, quantities};
use crate::names;
use crate::object::Object;
use crate::options::RenderOptions;
use crate::validated::{Devices, ValidatedDeployment, ValidatedPool};

/// Pause before SIGTERM, so that routers stop sending first (guides: `preStop` of 15 s).
const PRE_STOP_SECONDS: i64 = 15;
/// Time between the end of the drain and SIGKILL (guides: grace ≥ preStop + timeout + 15).
const KILL_MARGIN_SECONDS: i64 = 15;

pub(super) fn service_account(deployment: &ValidatedDeployment) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(deployment, account_name(deployment), "modelserver"),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn account_name(deployment: &ValidatedDeployment) -> String {
    format!("{}-modelserver", deployment.name)
}

/// What pods claim.
pub(super) fn claim_templates(deployment: &ValidatedDeployment) -> Vec<Object> {
    let templates = deployment
        .pools
        .iter()
        .filter_map(|pool| claims::template(deployment, pool));
    templates
        .map(|template| Object::ResourceClaimTemplate(Box::new(template)))
        .collect()
}

/// All workloads, and before each the budget of its pods.
pub(super) fn workloads(deployment: &ValidatedDeployment, options: &RenderOptions) -> Vec<Object> {
    let pools = deployment.pools.iter();
    if deployment.rollout.strategy != RolloutStrategy::DisaggregatedSet {
        return pools
            .flat_map(|pool| workload(deployment, pool, options))
            .collect();
    }
    let mut objects = Vec::new();
    let mut roles = Vec::new();
    for pool in pools {
        let (template, _) = marked(deployment, pool, options);
        let mut meta = metadata(
            deployment,
            format!("{}-{}", deployment.name, pool.name),
            "modelserver",
        );
        meta.labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let budget = budget(&meta, label_selector(selector(deployment, pool)));
        objects.push(Object::PodDisruptionBudget(Box::new(budget)));
        roles.push(DisaggregatedRole {
            name: pool.name.clone(),
            metadata: RoleMetadata {
                labels: meta.labels.unwrap_or_default(),
            },
            spec: group::spec(deployment, pool, template),
        });
    }
    let set = DisaggregatedSet {
        metadata: metadata(deployment, deployment.name.clone(), "modelserver"),
        spec: DisaggregatedSetSpec { roles },
    };
    objects.push(Object::DisaggregatedSet(Box::new(set)));
    objects
}

/// The pods of a pool with their revision, where there is one.
fn marked(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    options: &RenderOptions,
) -> (PodTemplateSpec, Option<String>) {
    let mut template = template(deployment, pool, options);
    let revision = revision::of(deployment, options);
    if let Some(revision) = &revision {
        revision::mark(&mut template, revision);
    }
    (template, revision)
}

fn workload(deployment: &ValidatedDeployment, pool: &ValidatedPool, options: &RenderOptions) -> [Object; 2] {
    let pool_name = format!("{}-{}", deployment.name, pool.name);
    let mut meta = metadata(deployment, pool_name.clone(), "modelserver");
    let (template, revision) = marked(deployment, pool, options);
    let mut pods = selector(deployment, pool);
    meta.labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    // of all revisions
    let budget = budget(&meta, label_selector(pods.clone()));
    let budget = Object::PodDisruptionBudget(Box::new(budget));
    if let Some(revision) = revision.filter(|_| deployment.rollout.strategy == RolloutStrategy::Coherent) {
        meta.name = Some(format!("{pool_name}-{}", revision::short(&revision)));
        pods.insert(names::REVISION.to_owned(), revision);
    }
    if pool.parallelism.nodes() > 1 {
        let set = LeaderWorkerSet {
            metadata: meta,
            spec: group::spec(deployment, pool, template),
        };
        return [budget, Object::LeaderWorkerSet(Box::new(set))];
    }
    let rolling = RollingUpdateDeployment {
        max_surge: Some(deployment.rollout.max_surge.clone()),
        max_unavailable: Some(deployment.rollout.max_unavailable.clone()),
    };
    let workload = Deployment {
        metadata: meta,
        spec: Some(DeploymentSpec {
            replicas: Some(pool.replicas),
            selector: label_selector(pods),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(rolling),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    [budget, Object::Deployment(Box::new(workload))]
}

fn template(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    options: &RenderOptions,
) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels(deployment, pool)),
            annotations: mooncake::digest(deployment, pool),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(deployment, pool, options)),
    }
}

/// Value of the role's label; the guides call engines that do all of a request `decode`, too.
fn role(role: Role) -> &'static str {
    match role {
        Role::Both | Role::Decode => "decode",
        Role::Prefill => "prefill",
        Role::Encode => "encode",
    }
}

/// Whose metric names an engine uses.
fn metric_names(kind: EngineType) -> &'static str {
    match kind {
        // The simulator speaks vLLM's.
        EngineType::Vllm | EngineType::Simulator => "vllm",
        EngineType::Sglang => "sglang",
    }
}

fn label_selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        ..LabelSelector::default()
    }
}

/// Fixed for life: a Deployment's selector cannot change.
fn selector(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> BTreeMap<String, String> {
    map([
        (names::DEPLOYMENT, &deployment.name),
        (names::POOL, &pool.name),
        (names::ROLE, role(pool.role)),
    ])
}

fn pod_labels(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> BTreeMap<String, String> {
    let mut labels = labels(deployment, "modelserver");
    let (variant, vendor) = match pool.vendor {
        Vendor::Nvidia => ("gpu", Some("nvidia")),
        Vendor::Amd => ("gpu", Some("amd")),
        Vendor::Google => ("tpu", Some("google")),
        Vendor::Intel => ("xpu", Some("intel")),
        Vendor::Cpu | Vendor::None => ("cpu", None),
    };
    labels.extend(selector(deployment, pool));
    labels.extend(map([
        (names::SERVING, "true"),
        (names::GUIDE, &deployment.path.name),
        (names::MODEL, &names::label_value(deployment.model.name())),
        (names::ENGINE_TYPE, metric_names(pool.engine.kind)),
        (names::ACCELERATOR_VARIANT, variant),
    ]));
    if let Some(vendor) = vendor {
        labels.insert(names::ACCELERATOR_VENDOR.to_owned(), vendor.to_owned());
    }
    labels
}

fn pod(deployment: &ValidatedDeployment, pool: &ValidatedPool, options: &RenderOptions) -> PodSpec {
    let scheduling = &pool.scheduling;
    let tolerations: Vec<Toleration> = scheduling.tolerations.iter().flatten().map(toleration).collect();
    let (volumes, mounts) = volumes(deployment, pool, options);
    PodSpec {
        containers: vec![container(deployment, pool, mounts, options)],
        init_containers: deployment
            .has_sidecar(pool)
            .then(|| vec![sidecar::container(deployment, pool, options)]),
        service_account_name: Some(account_name(deployment)),
        automount_service_account_token: Some(false),
        image_pull_secrets: pull_secrets(&deployment.image_pull_secrets),
        node_selector: scheduling.node_selector.clone(),
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        priority_class_name: scheduling.priority_class_name.clone(),
        security_context: Some(security::pod(deployment, options)),
        topology_spread_constraints: Some(spread(LabelSelector {
            match_labels: Some(selector(deployment, pool)),
            ..LabelSelector::default()
        })),
        termination_grace_period_seconds: Some(
            PRE_STOP_SECONDS + deployment.rollout.drain_seconds + KILL_MARGIN_SECONDS,
        ),
        resource_claims: claims::of(deployment, pool).map(|(claims, _)| claims),
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn toleration(toleration: &llmd_crds::Toleration) -> Toleration {
    let llmd_crds::Toleration {
        key,
        operator,
        value,
        effect,
    } = toleration;
    Toleration {
        key: key.clone(),
        operator: operator.map(|operator| format!("{operator:?}")),
        value: value.clone(),
        effect: effect.map(|effect| format!("{effect:?}")),
        ..Toleration::default()
    }
}

fn container(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    mounts: Vec<VolumeMount>,
    options: &RenderOptions,
) -> Container {
    let (mut requests, mut limits) = (pool.requests.clone(), pool.limits.clone());
    let devices = [pool.accelerators.as_ref(), transfer::devices(deployment, pool)];
    for (resource, count) in devices.into_iter().flatten().filter_map(Devices::resource) {
        requests.insert(resource.to_owned(), count.to_string());
        limits.insert(resource.to_owned(), count.to_string());
    }
    let engine = &pool.engine;
    let image = engine
        .image
        .clone()
        .unwrap_or_else(|| images::engine(deployment, pool, options));
    let (command, args) = command::line(deployment, pool, storage::DIRECTORY);
    let probes = probes::of(pool);
    let mut ports = ranks::ports(deployment, pool);
    ports.extend(transfer::ports(deployment, pool));
    Container {
        name: "modelserver".to_owned(),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        image: Some(image),
        image_pull_policy: engine.image_pull_policy.map(|policy| format!("{policy:?}")),
        command,
        args: Some(args),
        env: Some(environment(deployment, pool, options)),
        ports: Some(ports),
        resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
            requests: quantities(&requests),
            limits: quantities(&limits),
            claims: claims::of(deployment, pool).map(|(_, uses)| uses),
        }),
        startup_probe: Some(probes.startup),
        liveness_probe: Some(probes.liveness),
        readiness_probe: Some(probes.readiness),
        // The action of the kubelet, not a program: our image has no shell (Kubernetes 1.30+).
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: PRE_STOP_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(security::container(deployment)),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Where the engine itself listens: behind its sidecar, which has the port that routers know.
fn engine_port(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> i32 {
    if deployment.has_sidecar(pool) {
        names::INNER_ENGINE_PORT
    } else {
        names::ENGINE_PORT
    }
}

fn environment(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    options: &RenderOptions,
) -> Vec<EnvVar> {
    let mut variables = vec![
        env_field("POD_NAME", "metadata.name"),
        env_field("POD_NAMESPACE", "metadata.namespace"),
        env_field("POD_IP", "status.podIP"),
    ];
    if pool.engine.kind != EngineType::Simulator {
        // An arbitrary user has no entry in the image, and torch looks its name up (vllm#44548). Its home
        // directory is `/`, as container runtimes have it, which is where the caches are mounted.
        variables.extend([pod::env("USER", "llm-d"), pod::env("DO_NOT_TRACK", "1")]);
        if deployment.pod_security == PodSecurity::Privileged {
            // root has a home directory of its own, away from these mounts
            variables.push(pod::env("HOME", "/"));
        }
        variables.extend(egress::variables(&options.egress));
        variables.extend(storage::variables(&deployment.model));
        if let Some((name, key)) = &deployment.model.token {
            let selector = SecretKeySelector {
                name: name.clone(),
                key: key.clone(),
                optional: None,
            };
            variables.push(EnvVar {
                name: "HF_TOKEN".to_owned(),
                value_from: Some(EnvVarSource {
                    secret_key_ref: Some(selector),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
    }
    variables.extend(transfer::variables(deployment, pool));
    variables.extend(offload::variables(&deployment.kv, pool));
    variables.extend(mooncake::variables(&deployment.kv, pool));
    for variable in &pool.engine.env {
        variables.retain(|earlier| earlier.name != variable.name);
        variables.push(env::variable(variable));
    }
    variables
}

/// Writable directories of a read-only root, and the model's claim.
fn volumes(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    options: &RenderOptions,
) -> (Vec<Volume>, Vec<VolumeMount>) {
    let mut volumes = vec![empty_dir("tmp", None)];
    let mut mounts = vec![mount("tmp", "/tmp", false)];
    if pool.engine.kind != EngineType::Simulator {
        let holds_encodings =
            pool.role == Role::Encode || pool.role == Role::Prefill && deployment.takes_encodings(pool);
        let shared = if holds_encodings {
            encodings::SHARED_MEMORY.to_owned()
        } else {
            offload::shared_memory(&deployment.kv, pool)
        };
        volumes.push(empty_dir("shm", Some(&shared)));
        mounts.push(mount("shm", "/dev/shm", false));
        for (name, path) in [
            ("torch-compile-cache", "/.cache"),
            ("triton-cache", "/.triton"),
            ("vllm-config", "/.config"),
        ] {
            volumes.push(empty_dir(name, None));
            mounts.push(mount(name, path, false));
        }
        if let Some((volume, mount)) = egress::bundle(&options.egress) {
            volumes.push(volume);
            mounts.push(mount);
        }
        let claims = [
            storage::volume(&deployment.model),
            offload::volume(&deployment.kv, pool),
            mooncake::volume(deployment, pool),
        ];
        for (volume, mount) in claims.into_iter().flatten() {
            volumes.push(volume);
            mounts.push(mount);
        }
    }
    (volumes, mounts)
}
