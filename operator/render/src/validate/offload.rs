//! Tiers of the KV cache below the accelerators' memory.

use llmd_crds::{KvFilesystem, KvOffload, KvOffloadConnector, Role};

use super::{Resolver, quantity};
use crate::field_error::{FieldError, Problem};
use crate::validated::{ValidatedFilesystem, ValidatedMooncake, ValidatedOffload, ValidatedPool};

/// Threads of the guide `tiered-prefix-cache`.
const THREADS: i32 = 16;

/// Of the guide `tiered-prefix-cache`.
const MOONCAKE_BUFFER: &str = "4Gi";

/// Hashes of blocks begin with it: unequal seeds find nothing of each other.
const SEED: &str = "PYTHONHASHSEED";

impl Resolver<'_> {
    pub(super) fn offload(
        &mut self,
        offload: &KvOffload,
        pools: &[ValidatedPool],
    ) -> Option<ValidatedOffload> {
        let connector = offload.connector.unwrap_or_default();
        let cpu_bytes = match offload.cpu.as_deref() {
            Some(cpu) => self.bytes("spec.kv.offload.cpu", cpu)?,
            // then the store has memory of its own
            None if connector == KvOffloadConnector::Mooncake => 0,
            None => {
                let message = "how much memory may blocks take? give a quantity such as 100Gi";
                self.refuse("spec.kv.offload.cpu", Problem::Required, message);
                return None;
            }
        };
        let cpu = offload.cpu.as_deref().unwrap_or("0");
        for pool in pools.iter().filter(|pool| pool.role != Role::Encode) {
            let wanted = cpu_bytes as f64 * f64::from(pool.parallelism.data_local);
            let limit = pool.limits.get("memory").and_then(|limit| quantity::parse(limit));
            if limit.is_some_and(|limit| limit <= wanted) {
                let message = format!(
                    "kv.offload.cpu takes {cpu} for each of {} ranks, which leaves nothing for the engine: raise this above \
                     their product, or lower kv.offload.cpu",
                    pool.parallelism.data_local
                );
                self.refuse_pool(pool, "resources.limits.memory", &message);
            }
        }
        let seed = |pool: &ValidatedPool| {
            let mut variables = pool.engine.env.iter();
            variables
                .find(|variable| variable.name == SEED)
                .map(|variable| variable.value.clone())
        };
        if let Some(other) = pools
            .iter()
            .find(|pool| seed(pool) != pools.first().and_then(seed))
        {
            let message = format!(
                "{SEED} differs between pools, so that their blocks have different names: leave it out, and the operator \
                 sets one for all"
            );
            self.refuse_pool(other, "engine.env", &message);
        }
        let filesystem = offload.filesystem.as_ref();
        Some(ValidatedOffload {
            connector,
            cpu_bytes,
            peer_to_peer: self.peers(offload, connector, pools),
            mooncake: self.mooncake(offload, connector),
            filesystem: filesystem.and_then(|filesystem| self.filesystem(filesystem, connector)),
        })
    }

    fn filesystem(
        &mut self,
        filesystem: &KvFilesystem,
        connector: KvOffloadConnector,
    ) -> Option<ValidatedFilesystem> {
        let field = "spec.kv.offload.filesystem";
        let threads = [
            ("readThreads", filesystem.read_threads),
            ("writeThreads", filesystem.write_threads),
        ];
        match connector {
            KvOffloadConnector::Native if filesystem.size.is_some() => {
                let message = "connector Native removes nothing from a file system: leave size out and clean the claim \
                               yourself, or use connector LMCache";
                self.refuse(&format!("{field}.size"), Problem::Forbidden, message);
            }
            KvOffloadConnector::LmCache => {
                for (name, _) in threads.iter().filter(|(_, count)| count.is_some()) {
                    let message = "LMCache has no such setting: leave it out, or use connector Native";
                    self.refuse(&format!("{field}.{name}"), Problem::Forbidden, message);
                }
                if filesystem.size.is_none() {
                    let message = "LMCache needs to know how much it may keep: give a quantity such as 1Ti";
                    self.refuse(&format!("{field}.size"), Problem::Required, message);
                }
            }
            KvOffloadConnector::Mooncake => {
                let message =
                    "a Mooncake store keeps its own files: leave it out, and give its clients a directory";
                self.refuse(field, Problem::Forbidden, message);
            }
            KvOffloadConnector::Native => {}
        }
        let bytes = match &filesystem.size {
            Some(size) => Some(self.bytes(&format!("{field}.size"), size)?),
            None => None,
        };
        let [read, write] = threads.map(|(_, count)| count.unwrap_or(THREADS));
        Some(ValidatedFilesystem {
            claim: filesystem.claim_name.clone(),
            bytes,
            threads: (read, write),
        })
    }

    fn mooncake(&mut self, offload: &KvOffload, connector: KvOffloadConnector) -> Option<ValidatedMooncake> {
        let field = "spec.kv.offload.mooncake";
        if connector != KvOffloadConnector::Mooncake {
            if offload.mooncake.is_some() {
                let message = "is for connector Mooncake: set that, or leave this out";
                self.refuse(field, Problem::Forbidden, message);
            }
            return None;
        }
        let Some(store) = &offload.mooncake else {
            let message = "where is the store's master? give master: <host>:50051";
            self.refuse(field, Problem::Required, message);
            return None;
        };
        let buffer = store.buffer.as_deref().unwrap_or(MOONCAKE_BUFFER);
        let buffer_bytes = self.bytes(&format!("{field}.buffer"), buffer)?;
        let port = store.master.rsplit(':').next().and_then(|port| port.parse().ok());
        if port.is_none_or(|port: u16| port == 0) {
            let message = "the port must be from 1 to 65535";
            self.refuse(&format!("{field}.master"), Problem::Invalid, message);
        }
        Some(ValidatedMooncake {
            master: store.master.clone(),
            protocol: store.protocol.unwrap_or_default(),
            buffer_bytes,
        })
    }

    /// Whether engines read each other's memory, and whether they can.
    fn peers(&mut self, offload: &KvOffload, connector: KvOffloadConnector, pools: &[ValidatedPool]) -> bool {
        let field = "spec.kv.offload.peerToPeer";
        if !offload.peer_to_peer.unwrap_or(false) {
            return false;
        }
        if connector != KvOffloadConnector::Native {
            let message = "is of connector Native only: use that, or leave this out";
            self.refuse(field, Problem::Forbidden, message);
        }
        let reading = || pools.iter().filter(|pool| pool.role != Role::Encode);
        for pool in reading().filter(|pool| pool.parallelism.nodes() > 1) {
            let message = "engines of several pods cannot read each other's memory: set parallelism so that one pod is an \
                           engine, or leave kv.offload.peerToPeer out";
            self.refuse_pool(pool, "parallelism", message);
        }
        let split = |pool: &ValidatedPool| (pool.parallelism.tensor, pool.parallelism.pipeline);
        let first = reading().next().map(split);
        if let Some(other) = reading().find(|pool| Some(split(pool)) != first) {
            let message = "engines read each other's memory, and must be split in the same way: give all pools the same \
                           tensor and pipeline, or leave kv.offload.peerToPeer out";
            self.refuse_pool(other, "parallelism.tensor", message);
        }
        true
    }

    /// A quantity of at least a mebibyte, in bytes.
    fn bytes(&mut self, field: &str, text: &str) -> Option<i64> {
        const LEAST: f64 = 1_048_576.0;
        const MOST: f64 = 1e15;
        let bytes = quantity::parse(text).filter(|bytes| (LEAST..=MOST).contains(bytes));
        if bytes.is_none() {
            let message = "must be a quantity from 1Mi to 1P, such as 100Gi";
            self.errors
                .push(FieldError::new(field, Problem::Invalid, message).value(text));
        }
        bytes.map(|bytes| bytes as i64)
    }
}
