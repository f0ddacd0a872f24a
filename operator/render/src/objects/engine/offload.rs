//! Tiers of the KV cache below accelerators: settings, variables, shared memory and the claim.
//! Source: llm-d guides v0.8, `tiered-prefix-cache`.

use k8s_openapi::api::core::v1::{EnvVar, PersistentVolumeClaimVolumeSource, Volume, VolumeMount};
use llmd_crds::{EngineType, KvOffloadConnector, Role};
use serde::Serialize;

use super::super::pod::{env, env_field, mount};
use crate::names;
use crate::validated::{ValidatedKv, ValidatedOffload, ValidatedPool};

/// Where the claim is mounted.
const DIRECTORY: &str = "/mnt/files-storage";
/// Tokens of a file, at least.
const FILE_TOKENS: i32 = 256;
/// Of all engines, so that they give equal blocks equal names.
const HASH_SEED: &str = "42";
/// Shared memory that engines use for other things.
const SHARED_MEMORY_GI: i64 = 20;
const GI: i64 = 1 << 30;

/// `kv_connector_extra_config` of vLLM's `OffloadingConnector`.
#[derive(Serialize)]
pub(super) struct Native {
    #[serde(skip_serializing_if = "Option::is_none")]
    spec_name: Option<&'static str>,
    cpu_bytes_to_use: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_size: Option<i32>,
    /// Answers too, so that another engine can go on with a conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    offload_prompt_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_describing_kv_events: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secondary_tiers: Vec<Tier>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Tier {
    Fs {
        root_dir: &'static str,
        n_read_threads: i32,
        n_write_threads: i32,
    },
    P2p {
        host: &'static str,
        port: i32,
    },
}

pub(super) fn native(kv: &ValidatedKv, offload: &ValidatedOffload) -> Native {
    let files = offload.filesystem.as_ref().map(|filesystem| Tier::Fs {
        root_dir: DIRECTORY,
        n_read_threads: filesystem.threads.0,
        n_write_threads: filesystem.threads.1,
    });
    // a whole number of the engine's own blocks
    let unit = kv.block_size.unwrap_or(FILE_TOKENS);
    let tokens = unit * ((FILE_TOKENS - 1) / unit + 1);
    let peers = offload.peer_to_peer.then_some(Tier::P2p {
        // expanded by the kubelet
        host: "$(POD_IP)",
        port: names::PEERS_PORT,
    });
    let shares = offload.peer_to_peer;
    Native {
        spec_name: is_tiered(offload).then_some("TieringOffloadingSpec"),
        cpu_bytes_to_use: offload.cpu_bytes,
        block_size: files.as_ref().map(|_| tokens),
        offload_prompt_only: shares.then_some(false),
        self_describing_kv_events: shares.then_some(true),
        secondary_tiers: files.into_iter().chain(peers).collect(),
    }
}

/// Whether the memory is mapped from a file, for tiers below it.
fn is_tiered(offload: &ValidatedOffload) -> bool {
    offload.connector == KvOffloadConnector::Native && (offload.filesystem.is_some() || offload.peer_to_peer)
}

/// The shell that begins vLLM where the files of a killed engine have to go first: they would keep its memory.
pub(super) fn script(kv: &ValidatedKv, pool: &ValidatedPool) -> Option<String> {
    of(kv, pool)
        .filter(|offload| is_tiered(offload))
        .map(|_| r#"rm -f /dev/shm/vllm_offload_*.mmap; exec vllm serve "$@""#.to_owned())
}

fn of<'a>(kv: &'a ValidatedKv, pool: &ValidatedPool) -> Option<&'a ValidatedOffload> {
    kv.offload.as_ref().filter(|_| pool.role != Role::Encode)
}

pub(super) fn variables(kv: &ValidatedKv, pool: &ValidatedPool) -> Vec<EnvVar> {
    let Some(offload) = of(kv, pool) else {
        return Vec::new();
    };
    if pool.engine.kind == EngineType::Sglang {
        return Vec::new();
    }
    let is_shared = is_tiered(offload) || offload.connector != KvOffloadConnector::Native;
    let mut variables = Vec::new();
    variables.extend(is_shared.then(|| env("PYTHONHASHSEED", HASH_SEED)));
    if offload.peer_to_peer {
        variables.push(env_field("VLLM_P2P_SIDE_CHANNEL_HOST", "status.podIP"));
    }
    if offload.connector == KvOffloadConnector::LmCache {
        let gibibytes = |bytes: i64| format!("{:.1}", bytes as f64 / GI as f64);
        variables.push(env("LMCACHE_MAX_LOCAL_CPU_SIZE", &gibibytes(offload.cpu_bytes)));
        variables.push(env("PROMETHEUS_MULTIPROC_DIR", "/tmp/lmcache_prometheus"));
        if let Some(bytes) = offload
            .filesystem
            .as_ref()
            .and_then(|filesystem| filesystem.bytes)
        {
            variables.push(env(
                "LMCACHE_LOCAL_DISK",
                &format!("file://{DIRECTORY}/kv-cache/"),
            ));
            variables.push(env("LMCACHE_MAX_LOCAL_DISK_SIZE", &gibibytes(bytes)));
            variables.push(env("LMCACHE_EXTRA_CONFIG", r#"{"use_odirect":"True"}"#));
        }
    }
    variables
}

/// Size of `/dev/shm`: with a tier below the memory, vLLM maps the memory there.
pub(super) fn shared_memory(kv: &ValidatedKv, pool: &ValidatedPool) -> String {
    let offloaded = of(kv, pool)
        .filter(|offload| is_tiered(offload))
        .map_or(0, |offload| {
            let bytes = offload
                .cpu_bytes
                .saturating_mul(i64::from(pool.parallelism.data_local));
            bytes.saturating_add(GI - 1) / GI
        });
    format!("{}Gi", SHARED_MEMORY_GI + offloaded)
}

pub(super) fn volume(kv: &ValidatedKv, pool: &ValidatedPool) -> Option<(Volume, VolumeMount)> {
    let filesystem = of(kv, pool)?.filesystem.as_ref()?;
    let volume = Volume {
        name: "kv-files".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: filesystem.claim.clone(),
            read_only: None,
        }),
        ..Volume::default()
    };
    Some((volume, mount("kv-files", DIRECTORY, false)))
}
