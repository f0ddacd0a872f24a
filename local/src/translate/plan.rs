//! Sorts rendered objects into workloads, files and the pool that the router serves.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, PodTemplateSpec, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::router;
use crate::error::LocalError;

/// The rendered objects that matter on one machine. Accounts, roles and pool objects speak to an API server and
/// have no counterpart.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Namespace of all of them.
    pub namespace: String,
    /// Workloads.
    pub deployments: Vec<Deployment>,
    /// Files.
    pub config_maps: Vec<ConfigMap>,
    /// The way in.
    pub services: Vec<Service>,
    /// Selector and ports of the InferencePool, when one is rendered.
    pub pool: Option<Pool>,
}

/// Which pods the router picks from, and on which rendered ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Labels that a pod must have.
    pub selector: BTreeMap<String, String>,
    /// Rendered ports, one endpoint each.
    pub ports: Vec<u16>,
}

/// How the router is reached and where it reads its endpoints.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Endpoints file that takes the place of Kubernetes discovery.
    pub endpoints_file: PathBuf,
    /// Address for clients.
    pub bind: IpAddr,
    /// Port for clients.
    pub port: u16,
    /// File with the key that clients must send.
    pub api_key_file: Option<PathBuf>,
}

/// A Deployment as this machine runs it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Deployment name.
    pub name: String,
    /// Pods wanted.
    pub replicas: usize,
    /// Pod template.
    pub template: PodTemplateSpec,
    /// Changes when a pod must be replaced.
    pub hash: u64,
    /// Whether old pods stop before new ones start (`strategy: Recreate`).
    pub recreate: bool,
    /// GPUs of one pod.
    pub gpus: usize,
}

impl Workload {
    /// `deployment/NAME`, for messages.
    pub fn reference(&self) -> String {
        format!("deployment/{}", self.name)
    }

    /// The pod spec.
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
        self.template
            .spec
            .as_ref()
            .unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
    }

    /// The pod labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static EMPTY: BTreeMap<String, String> = BTreeMap::new();
        self.template
            .metadata
            .as_ref()
            .and_then(|meta| meta.labels.as_ref())
            .unwrap_or(&EMPTY)
    }
}

/// Everything one run needs to know about the rendered objects.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Namespace.
    pub namespace: String,
    /// ConfigMaps by name, the router's configuration translated.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Workloads, the router first.
    pub workloads: Vec<Workload>,
    /// Name of the router's workload.
    pub router: String,
    /// Rendered port of the router that clients use.
    pub public_port: u16,
    /// Local port for clients.
    pub port: u16,
    /// Which pods are endpoints.
    pub pool: Pool,
}

impl Plan {
    /// Sorts `objects`; nothing is started or written.
    pub fn build(objects: &Objects, settings: &RouterSettings) -> Result<Self, LocalError> {
        let mut config_maps: BTreeMap<String, BTreeMap<String, String>> = objects
            .config_maps
            .iter()
            .map(|map| {
                (
                    map.metadata.name.clone().unwrap_or_default(),
                    map.data.clone().unwrap_or_default(),
                )
            })
            .collect();
        let mut router = None;
        let mut engines = Vec::new();
        for deployment in &objects.deployments {
            let mut workload = workload(deployment)?;
            if router::is_router(&workload) {
                let translated = router::translate(&mut workload, &mut config_maps, settings)?;
                // One machine has one public port.
                workload.recreate = true;
                router = Some((workload, translated));
            } else {
                engines.push(workload);
            }
        }
        let (router, translated) = router.ok_or(LocalError::NoRouter)?;
        let public_port = public_port(&objects.services, &router).unwrap_or(router::PROXY_PORT);
        let mut plan = Self {
            namespace: objects.namespace.clone(),
            config_maps,
            router: router.name.clone(),
            public_port,
            port: settings.port,
            pool: translated.or_else(|| objects.pool.clone()).unwrap_or_default(),
            workloads: std::iter::once(router).chain(engines).collect(),
        };
        let hashes: Vec<u64> = plan
            .workloads
            .iter()
            .map(|workload| plan.hash(workload))
            .collect();
        for (workload, hash) in plan.workloads.iter_mut().zip(hashes) {
            workload.hash = hash;
        }
        Ok(plan)
    }

    /// The workload called `name`.
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.name == name)
    }

    /// GPUs that all workloads ask for, and who asks.
    pub fn gpus(&self) -> (usize, String) {
        let asking: Vec<&Workload> = self
            .workloads
            .iter()
            .filter(|workload| workload.gpus > 0)
            .collect();
        let total = asking
            .iter()
            .map(|workload| workload.gpus * workload.replicas)
            .sum();
        let names: Vec<String> = asking.iter().map(|workload| workload.reference()).collect();
        (total, names.join(", "))
    }

    /// The port that a rendered port must get: the one clients use.
    pub fn fixed_port(&self, workload: &Workload, rendered: u16) -> Option<u16> {
        (workload.name == self.router && rendered == self.public_port).then_some(self.port)
    }

    /// What decides whether a running pod still fits: its template and the files it mounts.
    fn hash(&self, workload: &Workload) -> u64 {
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&workload.template)
            .unwrap_or_default()
            .hash(&mut hasher);
        for volume in workload.spec().volumes.iter().flatten() {
            if let Some(reference) = &volume.config_map {
                self.config_maps.get(&reference.name).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

fn workload(deployment: &Deployment) -> Result<Workload, LocalError> {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let spec = deployment.spec.clone().unwrap_or_default();
    let pod = spec.template.spec.clone().unwrap_or_default();
    if pod
        .init_containers
        .as_ref()
        .is_some_and(|containers| !containers.is_empty())
    {
        return Err(LocalError::Unsupported {
            object: format!("deployment/{name}"),
            what: "an init container".to_owned(),
        });
    }
    let gpus = count_gpus(&name, &pod)?;
    Ok(Workload {
        name,
        replicas: usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
        recreate: spec
            .strategy
            .as_ref()
            .is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")),
        template: spec.template,
        hash: 0,
        gpus,
    })
}

fn count_gpus(workload: &str, pod: &PodSpec) -> Result<usize, LocalError> {
    let mut count = 0;
    for container in &pod.containers {
        let resources = container.resources.clone().unwrap_or_default();
        let limits = resources.limits.or(resources.requests).unwrap_or_default();
        for (resource, quantity) in &limits {
            match resource.as_str() {
                "nvidia.com/gpu" => count += quantity.0.parse::<usize>().unwrap_or(0),
                extended if extended.contains('/') => {
                    return Err(LocalError::Gpus(crate::gpus::GpuError::UnknownDevice {
                        workload: format!("deployment/{workload}"),
                        resource: extended.to_owned(),
                    }));
                }
                _ => {}
            }
        }
    }
    Ok(count)
}

/// The router's port behind the Service port 80, or behind the one called `http`.
fn public_port(services: &[Service], router: &Workload) -> Option<u16> {
    let selected = services
        .iter()
        .filter_map(|service| service.spec.as_ref())
        .filter(|spec| {
            spec.selector.as_ref().is_some_and(|selector| {
                selector
                    .iter()
                    .all(|(key, value)| router.labels().get(key) == Some(value))
            })
        });
    for spec in selected {
        for port in spec.ports.iter().flatten() {
            if port.port != 80 && port.name.as_deref() != Some("http") {
                continue;
            }
            return match &port.target_port {
                Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
                Some(IntOrString::String(name)) => router
                    .spec()
                    .containers
                    .iter()
                    .flat_map(|container| container.ports.iter().flatten())
                    .find(|port| port.name.as_deref() == Some(name))
                    .and_then(|port| u16::try_from(port.container_port).ok()),
                None => u16::try_from(port.port).ok(),
            };
        }
    }
    None
}
