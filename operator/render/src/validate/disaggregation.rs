//! Roles that fit together, and what all of them must agree on.

use llmd_crds::{KvNetwork, LLMDeploymentSpec, Role};

use super::Resolver;
use crate::field_error::{FieldError, Problem};
use crate::validated::{DeviceSource, Devices, ValidatedKv, ValidatedPool, ValidatedTransfer};

/// Connections of the sidecar idle this long (llm-d-router); a server that closes them earlier resets requests.
const SIDECAR_IDLE_SECONDS: i64 = 90;

/// Variables that the operator derives from ports and addresses of the pod.
const DERIVED: [&str; 5] = [
    "VLLM_NIXL_SIDE_CHANNEL_HOST",
    "VLLM_NIXL_SIDE_CHANNEL_PORT",
    "VLLM_EC_SIDE_CHANNEL_HOST",
    "VLLM_EC_SIDE_CHANNEL_PORT",
    "SGLANG_TIMEOUT_KEEP_ALIVE",
];

impl Resolver<'_> {
    /// The KV cache, and roles that fit together.
    pub(super) fn kv(&mut self, merged: &LLMDeploymentSpec, pools: &[ValidatedPool]) -> ValidatedKv {
        let kv = merged.kv.clone().unwrap_or_default();
        let has = |role| pools.iter().any(|pool| pool.role == role);
        let is_split = pools.iter().any(|pool| pool.role != Role::Both);
        if !has(Role::Prefill) && kv.transfer.is_some() {
            let message = "no pool has role Prefill, so nothing is transferred: add such a pool beside one of role Decode, \
                           or leave this out";
            self.refuse("spec.kv.transfer", Problem::Forbidden, message);
        }
        for pool in pools {
            let message = match pool.role {
                Role::Prefill if !has(Role::Decode) => {
                    "role Prefill needs a pool of role Decode that answers: add one, or leave this role out"
                }
                Role::Encode if !has(Role::Decode) => {
                    "role Encode needs a pool of role Decode that answers: add one, or leave this role out"
                }
                Role::Decode if !has(Role::Prefill) && !has(Role::Encode) => {
                    "role Decode needs a pool of role Prefill that feeds it, or one of role Encode: add one, or leave this \
                     role out for engines that do all of a request"
                }
                Role::Both if is_split => {
                    "beside other roles every pool has one: set Decode, which also serves prompts that no prefill engine \
                     takes"
                }
                _ => continue,
            };
            self.refuse_pool(pool, "role", message);
        }
        let of = |role| pools.iter().filter(move |pool| pool.role == role);
        for (prefill, decode) in of(Role::Prefill).flat_map(|one| of(Role::Decode).map(move |two| (one, two)))
        {
            self.pair(prefill, decode);
        }
        for pool in pools {
            self.environment(pool, is_split);
        }
        let transfer = has(Role::Prefill).then(|| {
            let transfer = kv.transfer.unwrap_or_default();
            ValidatedTransfer {
                backend: transfer.backend,
                failure_policy: transfer.failure_policy,
                match_attribute: transfer
                    .network
                    .as_ref()
                    .and_then(|network| network.match_attribute.clone()),
                network: transfer.network.and_then(|network| self.network(network, pools)),
            }
        });
        ValidatedKv {
            block_size: kv.block_size,
            transfer,
            offload: kv.offload.and_then(|offload| self.offload(&offload, pools)),
        }
    }

    /// Devices for the transfer; either of the two sources, as the schema says.
    fn network(&mut self, network: KvNetwork, pools: &[ValidatedPool]) -> Option<Devices> {
        let field = "spec.kv.transfer.network";
        let (class, resource) = (network.device_class_name, network.resource_name);
        if network.match_attribute.is_some() {
            let claims = |pool: &ValidatedPool| {
                pool.accelerators
                    .as_ref()
                    .is_some_and(|all| all.class().is_some())
            };
            let moving = pools.iter().filter(|pool| pool.role != Role::Encode);
            if class.is_none() {
                let message = "only devices that are claimed have attributes: give deviceClassName in place of resourceName";
                self.refuse(&format!("{field}.matchAttribute"), Problem::Forbidden, message);
            }
            for pool in moving.filter(|pool| !claims(pool)) {
                let message =
                    "kv.transfer.network.matchAttribute joins claims of both: claim the accelerators, too";
                self.refuse_pool(pool, "accelerator.deviceClassName", message);
            }
            if network.count.is_some() {
                let message = "with matchAttribute each accelerator has one: leave it out";
                self.refuse(&format!("{field}.count"), Problem::Forbidden, message);
            }
        }
        let source = class
            .map(DeviceSource::Class)
            .or(resource.map(DeviceSource::Resource))?;
        let count = network.count.unwrap_or(1);
        Some(Devices { source, count })
    }

    /// Blocks of `prefill` go to `decode`.
    fn pair(&mut self, prefill: &ValidatedPool, decode: &ValidatedPool) {
        if prefill.parallelism.tensor > decode.parallelism.tensor {
            let message = format!(
                "a decode engine needs at least the tensor parallelism of the prefill engines, which is {}: NIXL cannot \
                 join the parts of a block; raise it here, or lower it in pool {}",
                prefill.parallelism.tensor, prefill.name
            );
            self.refuse_pool(decode, "parallelism.tensor", &message);
        }
        if prefill.engine.kind != decode.engine.kind {
            let message = format!(
                "engines of different types cannot exchange KV blocks: give pools {} and {} the same type",
                prefill.name, decode.name
            );
            self.refuse_pool(decode, "engine.type", &message);
        }
        for pool in [prefill, decode]
            .into_iter()
            .filter(|pool| pool.parallelism.stages() > 1)
        {
            let message = "the layers of an engine that gives or takes KV blocks stay in one pod: raise parallelism.tensor, \
                           or put all parts in one pod with pipelineLocal";
            self.refuse_pool(pool, "parallelism.pipeline", message);
        }
        if prefill.engine.image != decode.engine.image {
            let message = format!(
                "builds of the engine that differ cannot be relied on to exchange KV blocks: set spec.engine.image for \
                 all pools in place of one in {} or {}",
                prefill.name, decode.name
            );
            self.refuse_pool(decode, "engine.image", &message);
        }
        for flag in [
            "kv-cache-dtype",
            "dtype",
            "quantization",
            "attention-backend",
            "max-model-len",
        ] {
            let (one, other) = (prefill.engine.args.get(flag), decode.engine.args.get(flag));
            if one != other {
                let message = format!(
                    "{flag} differs between pools {} and {}, so that their KV blocks do: set it in spec.engine.args for \
                     all pools",
                    prefill.name, decode.name
                );
                self.refuse_pool(decode, "engine.args", &message);
            }
        }
    }

    /// Variables that contradict what is derived.
    fn environment(&mut self, pool: &ValidatedPool, is_split: bool) {
        for variable in &pool.engine.env {
            let name = variable.name.as_str();
            if is_split && DERIVED.contains(&name) || name.starts_with("LWS_") {
                let message = format!(
                    "{} is set on the cluster, from the pod's own address, port and number: leave it out",
                    variable.name
                );
                self.refuse_pool(pool, "engine.env", &message);
            }
            if !is_split || name != "VLLM_HTTP_TIMEOUT_KEEP_ALIVE" {
                continue;
            }
            let seconds: Option<i64> = variable.value.as_ref().and_then(|value| value.parse().ok());
            if seconds.is_none_or(|seconds| seconds <= SIDECAR_IDLE_SECONDS) {
                let message = format!(
                    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE must be above {SIDECAR_IDLE_SECONDS}, the time that a sidecar keeps \
                     connections: leave it out for 120"
                );
                self.refuse_pool(pool, "engine.env", &message);
            }
        }
    }

    pub(super) fn refuse(&mut self, field: &str, problem: Problem, message: &str) {
        self.errors.push(FieldError::new(field, problem, message));
    }

    /// Names the field where its author wrote the pool.
    pub(super) fn refuse_pool(&mut self, pool: &ValidatedPool, field: &str, message: &str) {
        let place = self.own_pool(&pool.name).map_or_else(
            || format!("spec.pools[{}]", pool.name),
            |(index, _)| format!("spec.pools[{index}]"),
        );
        self.refuse(&format!("{place}.{field}"), Problem::Invalid, message);
    }
}
