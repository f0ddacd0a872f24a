//! What SGLang has not, or not under these names.

use llmd_crds::{EngineType, KvOffloadConnector, LLMDeploymentSpec, Role, Vendor};

use super::Resolver;
use crate::field_error::Problem;
use crate::validated::{ValidatedKv, ValidatedModel, ValidatedPool};

impl Resolver<'_> {
    pub(super) fn sglang(&mut self, model: &ValidatedModel, pools: &[ValidatedPool], kv: &ValidatedKv) {
        let own: &LLMDeploymentSpec = &self.inputs.deployment.spec;
        let is_sglang = |pool: &&ValidatedPool| pool.engine.kind == EngineType::Sglang;
        let mut sglang = pools.iter().filter(is_sglang).peekable();
        if sglang.peek().is_none() {
            return;
        }
        if model.served_names.len() > 1 {
            let message = "SGLang serves one name: leave aliases out, or have the picker rewrite models";
            self.refuse("spec.model.aliases", Problem::Forbidden, message);
        }
        let policy = own
            .kv
            .as_ref()
            .and_then(|kv| kv.transfer.as_ref()?.failure_policy);
        if policy.is_some() {
            let message =
                "SGLang answers with an error where blocks do not arrive, and has no other way: leave it out";
            self.refuse("spec.kv.transfer.failurePolicy", Problem::Forbidden, message);
        }
        if let Some(offload) = &kv.offload {
            if offload.connector != KvOffloadConnector::Native {
                let message = "SGLang offloads by itself only: use Native";
                self.refuse("spec.kv.offload.connector", Problem::Invalid, message);
            }
            if offload.filesystem.is_some() {
                let message = "is not rendered for SGLang: leave it out, or use type Vllm";
                self.refuse("spec.kv.offload.filesystem", Problem::Forbidden, message);
            }
            if offload.peer_to_peer {
                let message =
                    "SGLang's engines do not read each other's memory: leave it out, or use type Vllm";
                self.refuse("spec.kv.offload.peerToPeer", Problem::Forbidden, message);
            }
        }
        for pool in sglang {
            if pool.role == Role::Encode {
                let message = "encode engines are vLLM's only: use type Vllm";
                self.refuse_pool(pool, "role", message);
            }
            if pool.parallelism.data > 1 {
                let message =
                    "data-parallel ranks are rendered for vLLM only: lower it to 1 and raise replicas";
                self.refuse_pool(pool, "parallelism.data", message);
            }
            let has_image =
                matches!(pool.vendor, Vendor::Nvidia | Vendor::Amd) || pool.engine.image.is_some();
            if !has_image {
                let message =
                    "SGLang's images are for Nvidia and Amd: use one of these, or name engine.image";
                self.refuse_pool(pool, "accelerator.vendor", message);
            }
        }
    }
}
