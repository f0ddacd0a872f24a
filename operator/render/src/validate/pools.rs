//! Pools: one engine each, its accelerators and where it may run.

use llmd_crds::{EngineType, LLMDeploymentSpec, Pool, RolloutStrategy, Vendor};

use super::{Resolver, engine, quantity};
use crate::field_error::{FieldError, Problem};
use crate::validated::{
    DeviceSource, Devices, ModelSource, ValidatedModel, ValidatedParallelism, ValidatedPool,
};

/// Class of devices of Intel's driver.
const INTEL: &str = "gpu.intel.com";
/// Most characters of a child's name (Kubernetes label values, Service names).
const CHILD_NAME: usize = 63;
/// Most characters of a LeaderWorkerSet's name with up to ten groups; each further digit takes one.
const GROUP_NAME: usize = 51;

impl Resolver<'_> {
    pub(super) fn pools(
        &mut self,
        merged: &LLMDeploymentSpec,
        name: &str,
        model: &ValidatedModel,
    ) -> Vec<ValidatedPool> {
        let pools = merged.pools.clone().unwrap_or_default();
        if pools.is_empty() {
            self.errors.push(FieldError::new(
                "spec.pools",
                Problem::Required,
                "name at least one pool",
            ));
        }
        let pools: Vec<ValidatedPool> = pools
            .iter()
            .map(|pool| self.pool(merged, name, model, pool))
            .collect();
        let ports = |pool: &ValidatedPool| pool.parallelism.ports();
        if let Some((first, other)) = pools
            .first()
            .and_then(|first| Some((first, pools.iter().find(|pool| ports(pool) != ports(first))?)))
        {
            let message = format!(
                "pods of pool {} have {} ports and those of pool {} {}, but an InferencePool has one list for all: give \
                 both the same dataLocal and loadBalancing",
                first.name,
                ports(first),
                other.name,
                ports(other)
            );
            self.refuse_pool(other, "parallelism.dataLocal", &message);
        }
        pools
    }

    fn pool(
        &mut self,
        merged: &LLMDeploymentSpec,
        name: &str,
        model: &ValidatedModel,
        pool: &Pool,
    ) -> ValidatedPool {
        let own = self.own_pool(&pool.name);
        let field = own.map_or_else(
            || format!("spec.pools[{}]", pool.name),
            |(index, _)| format!("spec.pools[{index}]"),
        );
        let mut child = format!("{name}-{}", pool.name);
        let strategy = merged.rollout.as_ref().and_then(|rollout| rollout.strategy);
        child.push_str(match strategy {
            Some(RolloutStrategy::Coherent) => "-01234567", // a revision
            // slice, revision, and the name of a Service
            Some(RolloutStrategy::DisaggregatedSet) => "-0-01234567-prv",
            Some(RolloutStrategy::RollingUpdate) | None => "",
        });
        if pool.name == "epp" {
            let message = "this name is taken by the router's own objects; choose another";
            self.errors
                .push(FieldError::new(format!("{field}.name"), Problem::Forbidden, message).value("epp"));
        }
        let engine = engine::resolve(
            merged.engine.as_ref(),
            pool.engine.as_ref(),
            own.and_then(|(_, own)| own.engine.as_ref()),
            &field,
            &mut self.errors,
        );
        if engine.kind != EngineType::Simulator && model.source == ModelSource::Nothing {
            let message = "an engine needs weights: give hf://org/name or pvc://claim/path";
            self.errors
                .push(FieldError::new("spec.model.uri", Problem::Required, message));
        }
        let parallelism = self.parallelism(pool, &field);
        if engine.kind == EngineType::Simulator && parallelism.pipeline > 1 {
            let message = "the simulator has no layers to split: leave it out";
            let field = format!("{field}.parallelism.pipeline");
            self.errors
                .push(FieldError::new(field, Problem::Forbidden, message).value(&parallelism.pipeline));
        }
        self.child_name(&child, &field, &parallelism, pool.replicas.unwrap_or(1));
        let mut scheduling =
            match crate::merge::overlay_option(merged.scheduling.as_ref(), pool.scheduling.as_ref()) {
                Ok(scheduling) => scheduling.unwrap_or_default(),
                Err(error) => {
                    self.errors.push(FieldError::new(
                        format!("{field}.scheduling"),
                        Problem::Invalid,
                        error.to_string(),
                    ));
                    llmd_crds::Scheduling::default()
                }
            };
        let (vendor, accelerators) =
            self.accelerators(pool, &field, &parallelism, engine.kind, &mut scheduling);
        let resources = pool.resources.clone().unwrap_or_default();
        let (requests, limits) = (
            resources.requests.unwrap_or_default(),
            resources.limits.unwrap_or_default(),
        );
        quantity::check(
            &format!("{field}.resources"),
            &requests,
            &limits,
            &mut self.errors,
        );
        let stopped = merged.stopped.unwrap_or(false);
        let replicas = if stopped {
            0
        } else {
            pool.replicas
                .unwrap_or(1)
                .saturating_mul(merged.replicas.unwrap_or(1))
        };
        ValidatedPool {
            name: pool.name.clone(),
            role: pool.role.unwrap_or_default(),
            replicas,
            engine,
            parallelism,
            vendor,
            accelerators,
            requests,
            limits,
            scheduling,
        }
    }

    /// Kubernetes' own limit, or that of groups, whose pods' names add their numbers.
    fn child_name(&mut self, child: &str, field: &str, parallelism: &ValidatedParallelism, replicas: i32) {
        let most = if parallelism.nodes() == 1 {
            CHILD_NAME
        } else {
            GROUP_NAME - (replicas - 1).max(0).to_string().len() + 1
        };
        if child.len() > most {
            let message =
                format!("{child} is longer than {most} characters: shorten metadata.name or the pool's name");
            self.errors.push(FieldError::new(
                format!("{field}.name"),
                Problem::Invalid,
                message,
            ));
        }
    }

    /// Resource name and count, and where nodes with them are found.
    fn accelerators(
        &mut self,
        pool: &Pool,
        field: &str,
        parallelism: &ValidatedParallelism,
        engine: EngineType,
        scheduling: &mut llmd_crds::Scheduling,
    ) -> (Vendor, Option<Devices>) {
        let accelerator = pool.accelerator.clone().unwrap_or_default();
        let per_pod = parallelism.per_pod();
        let vendor = accelerator.vendor.unwrap_or(match engine {
            EngineType::Vllm | EngineType::Sglang => Vendor::Nvidia,
            EngineType::Simulator => Vendor::None,
        });
        let field = format!("{field}.accelerator");
        let mut resource = match vendor {
            Vendor::Nvidia => Some("nvidia.com/gpu".to_owned()),
            Vendor::Amd => Some("amd.com/gpu".to_owned()),
            Vendor::Google => Some("google.com/tpu".to_owned()),
            Vendor::Intel | Vendor::Cpu | Vendor::None => None,
        };
        if let Some(wanted) = &accelerator.profile {
            let profiles = self.inputs.accelerators;
            let known: Vec<&str> = profiles
                .iter()
                .filter_map(|profile| profile.metadata.name.as_deref())
                .collect();
            match profiles
                .iter()
                .find(|profile| profile.metadata.name.as_ref() == Some(wanted))
            {
                None => {
                    let message = format!("no such AcceleratorProfile; known: {}", list(&known));
                    let error = FieldError::new(format!("{field}.profile"), Problem::NotFound, message);
                    self.errors.push(error.value(wanted).nearest(wanted, known));
                }
                Some(profile) => {
                    let profile = &profile.spec;
                    if per_pod > profile.accelerators_per_node {
                        let message = format!(
                            "one pod needs {per_pod} accelerators, a node of profile {wanted} has {}: lower parallelism.tensor or dataLocal",
                            profile.accelerators_per_node
                        );
                        self.errors.push(FieldError::new(
                            format!("{field}.profile"),
                            Problem::Invalid,
                            message,
                        ));
                    }
                    resource = Some(profile.resource_name.clone());
                    for (key, value) in profile.node_selector.iter().flatten() {
                        let selector = scheduling.node_selector.get_or_insert_default();
                        selector.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                    if let Some(tolerations) = &profile.tolerations {
                        scheduling
                            .tolerations
                            .get_or_insert_default()
                            .extend(tolerations.iter().cloned());
                    }
                }
            }
        }
        if engine == EngineType::Simulator
            && let Some(resource) = &resource
        {
            let message = format!(
                "the simulator would hold {per_pod} {resource} and use none: set path: simulated, or accelerator.vendor: None"
            );
            self.errors
                .push(FieldError::new(&field, Problem::Forbidden, message));
        }
        let class = accelerator
            .device_class_name
            .or_else(|| (vendor == Vendor::Intel).then(|| INTEL.to_owned()));
        if let Some(class) = &class
            && (accelerator.profile.is_some() || matches!(vendor, Vendor::Cpu | Vendor::None))
        {
            let message = "devices are claimed where a vendor has some, and a profile names a resource that is not: leave \
                           out one of the two";
            let error = FieldError::new(format!("{field}.deviceClassName"), Problem::Forbidden, message);
            self.errors.push(error.value(class));
        }
        let source = class
            .map(DeviceSource::Class)
            .or(resource.map(DeviceSource::Resource));
        let Some(source) = source else {
            if accelerator.count.is_some_and(|count| count > 0) {
                let message = "vendor Cpu and None have no accelerators to count";
                self.errors.push(FieldError::new(
                    format!("{field}.count"),
                    Problem::Forbidden,
                    message,
                ));
            }
            return (vendor, None);
        };
        if let Some(count) = accelerator.count.filter(|count| *count != per_pod) {
            let message = if parallelism.data_local == 1 {
                format!("must equal parallelism.tensor, which is {per_pod}")
            } else {
                format!("must equal parallelism.tensor times the ranks of a pod, which is {per_pod}")
            };
            self.errors
                .push(FieldError::new(format!("{field}.count"), Problem::Invalid, message).value(&count));
        }
        let devices = Devices {
            source,
            count: per_pod,
        };
        (vendor, Some(devices))
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
