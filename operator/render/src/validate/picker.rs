//! What the Endpoint Picker's configuration says again that the deployment says already: both must agree.

use llmd_crds::{LLMDeploymentSpec, Role, Vendor};
use serde_json::Value;

use super::Resolver;
use crate::field_error::Problem;
use crate::validated::{ModelSource, ValidatedKv, ValidatedModel, ValidatedPool};

const FIELD: &str = "spec.router.epp.config.inline";
const PEERS: &str = "p2p-source-producer";
const AFFINITY: &str = "prefix-cache-affinity-filter";
const THROUGHPUT: &str = "peakPrefillThroughput";
/// Flags that decide how many tokens of a prompt an engine computes at once, and so how fast.
const CHUNK: &str = "max-num-batched-tokens";

/// One plugin of the configuration.
#[derive(Clone, Copy)]
struct Plugin<'a> {
    kind: &'a str,
    parameters: &'a Value,
}

impl Plugin<'_> {
    fn number(&self, name: &str) -> Option<i64> {
        self.parameters.get(name).and_then(Value::as_i64)
    }
}

impl Resolver<'_> {
    pub(super) fn picker(
        &mut self,
        merged: &LLMDeploymentSpec,
        model: &ValidatedModel,
        pools: &[ValidatedPool],
        kv: &ValidatedKv,
    ) {
        let epp = merged.router.as_ref().and_then(|router| router.epp.as_ref());
        let Some(config) = epp.and_then(|epp| epp.config.as_ref()) else {
            return; // told already
        };
        let plugins = config.inline.get("plugins").and_then(Value::as_array);
        let is_source = |plugin: &Value| plugin.get("type").and_then(Value::as_str) == Some(PEERS);
        let names_peers = plugins.into_iter().flatten().any(is_source);
        if kv.shares_memory() != names_peers {
            let message = if names_peers {
                "p2p-source-producer: engines do not read each other's memory: set kv.offload.peerToPeer, or leave it out"
            } else {
                "kv.offload.peerToPeer needs the plugin p2p-source-producer, which names the engine that has the blocks: add \
                 it, or leave peerToPeer out"
            };
            self.refuse(FIELD, Problem::Invalid, message);
        }
        for plugin in plugins.into_iter().flatten() {
            let Some(kind) = plugin.get("type").and_then(Value::as_str) else {
                continue;
            };
            let parameters = plugin.get("parameters").unwrap_or(&Value::Null);
            let plugin = Plugin { kind, parameters };
            self.names_the_model(plugin, model);
            self.counts_blocks(plugin, kv);
            self.matches_lengths(plugin, pools);
            if kind == AFFINITY {
                self.is_calibrated(plugin, model, pools);
            }
        }
    }

    fn names_the_model(&mut self, plugin: Plugin<'_>, model: &ValidatedModel) {
        let name = plugin.parameters.get("modelName").and_then(Value::as_str);
        if let Some(name) = name.filter(|name| plugin.kind == "token-producer" && *name != model.name()) {
            let message = format!(
                "{}: modelName is {name:?}, but the model is served as {:?}, so that no prompt would be counted: write that \
                 name",
                plugin.kind,
                model.name()
            );
            self.refuse(FIELD, Problem::Invalid, &message);
        }
    }

    fn counts_blocks(&mut self, plugin: Plugin<'_>, kv: &ValidatedKv) {
        let block = ["blockSizeTokens", "blockSize"]
            .into_iter()
            .find_map(|name| plugin.number(name));
        if let (Some(block), Some(wanted)) = (block, kv.block_size.map(i64::from))
            && block != wanted
        {
            let message = format!(
                "{}: blocks of {block} tokens, but engines have spec.kv.blockSize {wanted}, so that prefixes would not be \
                 found: leave it out, the engines tell theirs",
                plugin.kind
            );
            self.refuse(FIELD, Problem::Invalid, &message);
        }
    }

    fn matches_lengths(&mut self, plugin: Plugin<'_>, pools: &[ValidatedPool]) {
        const MOST: &str = "maxPrefixTokensToMatch";
        let Some(most) = plugin.number(MOST).filter(|most| *most > 0) else {
            return;
        };
        for pool in pools {
            let length = pool
                .engine
                .args
                .get("max-model-len")
                .and_then(|length| length.parse::<i64>().ok());
            if let Some(length) = length.filter(|length| *length > most) {
                let message = format!(
                    "{}: {MOST} is {most}, but pool {} takes prompts of {length} tokens (max-model-len): raise it to {length}, \
                     or the ends of long prompts are not seen",
                    plugin.kind, pool.name
                );
                self.refuse(FIELD, Problem::Invalid, &message);
            }
        }
    }

    /// The throughput is measured for a model, an accelerator, its parallelism and its chunks.
    fn is_calibrated(&mut self, plugin: Plugin<'_>, model: &ValidatedModel, pools: &[ValidatedPool]) {
        if plugin.parameters.get("ttftSource").and_then(Value::as_str) == Some("latencyPredictor") {
            return;
        }
        let prefilling = || {
            pools
                .iter()
                .filter(|pool| matches!(pool.role, Role::Both | Role::Prefill))
        };
        let is_default = |pool: &ValidatedPool| {
            pool.vendor == Vendor::Nvidia
                && pool.parallelism.tensor == 2
                && matches!(&model.source, ModelSource::Hub { id, .. } if id == "Qwen/Qwen3-32B")
        };
        if plugin.number(THROUGHPUT).is_none() && !prefilling().all(is_default) {
            let message = format!(
                "{AFFINITY}: without {THROUGHPUT} it takes that of Qwen3-32B on two H100: measure the engine's own, \
                 {CHUNK} by the median time to the first token of one uncached prompt of that length, and write it"
            );
            self.refuse(FIELD, Problem::Required, &message);
        }
        let chunk = |pool: &ValidatedPool| pool.engine.args.get(CHUNK).cloned();
        let first = prefilling().next();
        if let Some(other) = first.and_then(|first| prefilling().find(|pool| chunk(pool) != chunk(first))) {
            let message = format!(
                "{CHUNK} differs between pools that compute prompts, but {AFFINITY} has one {THROUGHPUT} for all, measured \
                 with one of them: set it in spec.engine.args for all pools"
            );
            self.refuse_pool(other, "engine.args", &message);
        }
    }
}
