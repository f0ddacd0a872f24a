//! Pools: one engine each, its accelerators and where it may run.

use llmd_crds::{EngineType, LLMDeploymentSpec, Pool, Vendor};

use super::{Resolver, engine, quantity};
use crate::field_error::{FieldError, Problem};
use crate::validated::{ModelSource, ValidatedModel, ValidatedPool};

/// Most characters of a child's name (Kubernetes label values, Service names).
const CHILD_NAME: usize = 63;

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
        pools
            .iter()
            .map(|pool| self.pool(merged, name, model, pool))
            .collect()
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
        let child = format!("{name}-{}", pool.name);
        if child.len() > CHILD_NAME {
            let message = format!(
                "{child} is longer than {CHILD_NAME} characters: shorten metadata.name or the pool's name"
            );
            self.errors.push(FieldError::new(
                format!("{field}.name"),
                Problem::Invalid,
                message,
            ));
        }
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
        if engine.kind == EngineType::Vllm && model.source == ModelSource::Nothing {
            let message = "vLLM needs weights: give hf://org/name or pvc://claim/path";
            self.errors
                .push(FieldError::new("spec.model.uri", Problem::Required, message));
        }
        let tensor = pool
            .parallelism
            .as_ref()
            .and_then(|parallelism| parallelism.tensor)
            .unwrap_or(1);
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
        let (vendor, accelerators) = self.accelerators(pool, &field, tensor, engine.kind, &mut scheduling);
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
            tensor,
            vendor,
            accelerators,
            requests,
            limits,
            scheduling,
        }
    }

    /// Resource name and count, and where nodes with them are found.
    fn accelerators(
        &mut self,
        pool: &Pool,
        field: &str,
        tensor: i32,
        engine: EngineType,
        scheduling: &mut llmd_crds::Scheduling,
    ) -> (Vendor, Option<(String, i32)>) {
        let accelerator = pool.accelerator.clone().unwrap_or_default();
        let vendor = accelerator.vendor.unwrap_or(match engine {
            EngineType::Vllm => Vendor::Nvidia,
            EngineType::Simulator => Vendor::None,
        });
        let field = format!("{field}.accelerator");
        let mut resource = match vendor {
            Vendor::Nvidia => Some("nvidia.com/gpu".to_owned()),
            Vendor::Amd => Some("amd.com/gpu".to_owned()),
            Vendor::Google => Some("google.com/tpu".to_owned()),
            Vendor::Cpu | Vendor::None => None,
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
                    if tensor > profile.accelerators_per_node {
                        let message = format!(
                            "one engine needs {tensor} accelerators, a node of profile {wanted} has {}: lower parallelism.tensor",
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
                "the simulator would hold {tensor} {resource} and use none: set path: simulated, or accelerator.vendor: None"
            );
            self.errors
                .push(FieldError::new(&field, Problem::Forbidden, message));
        }
        let Some(resource) = resource else {
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
        if let Some(count) = accelerator.count.filter(|count| *count != tensor) {
            let message = format!("must equal parallelism.tensor, which is {tensor}");
            self.errors
                .push(FieldError::new(format!("{field}.count"), Problem::Invalid, message).value(&count));
        }
        (vendor, Some((resource, tensor)))
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
