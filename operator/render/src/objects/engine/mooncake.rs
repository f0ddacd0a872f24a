//! A Mooncake store for KV blocks: the file that tells engines where it is.
//! Sources: llm-d guides v0.8, `tiered-prefix-cache`; vLLM `MooncakeStoreConfig`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, EnvVar, Volume, VolumeMount};
use llmd_crds::{MooncakeProtocol, Role};
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

use super::super::meta::{map, metadata};
use super::super::pod::{env, mount};
use crate::names;
use crate::validated::{ValidatedDeployment, ValidatedKv, ValidatedMooncake, ValidatedPool};

const DIRECTORY: &str = "/etc/mooncake";
const FILE: &str = "mooncake_config.json";

/// In this order, whatever `serde_json` was built with.
#[derive(Serialize)]
struct Config<'a> {
    mode: &'static str,
    metadata_server: &'static str,
    master_server_address: &'a str,
    global_segment_size: i64,
    local_buffer_size: i64,
    protocol: &'static str,
    device_name: &'static str,
    enable_offload: bool,
}

fn store(kv: &ValidatedKv) -> Option<(&ValidatedMooncake, i64)> {
    let offload = kv.offload.as_ref()?;
    Some((offload.mooncake.as_ref()?, offload.cpu_bytes))
}

fn text(kv: &ValidatedKv) -> Option<String> {
    let (store, given) = store(kv)?;
    let is_embedded = given > 0;
    let config = Config {
        mode: if is_embedded {
            "embedded"
        } else {
            "standalone-store"
        },
        metadata_server: "P2PHANDSHAKE",
        master_server_address: &store.master,
        global_segment_size: given,
        local_buffer_size: store.buffer_bytes,
        protocol: match store.protocol {
            MooncakeProtocol::Tcp => "tcp",
            MooncakeProtocol::Rdma => "rdma",
        },
        device_name: "",
        // what a store of its own has below its memory is its own business
        enable_offload: !is_embedded,
    };
    serde_json::to_string(&config).ok()
}

fn name(deployment: &ValidatedDeployment) -> String {
    format!("{}-mooncake", deployment.name)
}

/// The file, for all pools.
pub(in crate::objects) fn config_map(deployment: &ValidatedDeployment) -> Option<ConfigMap> {
    let text = text(&deployment.kv)?;
    Some(ConfigMap {
        metadata: metadata(deployment, name(deployment), "modelserver"),
        data: Some(map([(FILE, &text)])),
        ..ConfigMap::default()
    })
}

/// Whether engines of `pool` read the file.
fn reads(kv: &ValidatedKv, pool: &ValidatedPool) -> bool {
    store(kv).is_some() && pool.role != Role::Encode
}

/// An annotation that replaces pods when the file changes: they read it once.
pub(super) fn digest(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
) -> Option<BTreeMap<String, String>> {
    let text = text(&deployment.kv).filter(|_| reads(&deployment.kv, pool))?;
    let digest = format!("{:016x}", xxh64(text.as_bytes(), 0));
    Some(map([(names::CONFIG_HASH, &digest)]))
}

pub(super) fn variables(kv: &ValidatedKv, pool: &ValidatedPool) -> Option<EnvVar> {
    reads(kv, pool).then(|| env("MOONCAKE_CONFIG_PATH", &format!("{DIRECTORY}/{FILE}")))
}

pub(super) fn volume(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
) -> Option<(Volume, VolumeMount)> {
    reads(&deployment.kv, pool).then(|| {
        let volume = Volume {
            name: "mooncake".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: name(deployment),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        };
        (volume, mount("mooncake", DIRECTORY, true))
    })
}
