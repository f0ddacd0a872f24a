//! vLLM's `--kv-transfer-config`: NIXL between roles, offloading below an engine, or both.
//! Sources: llm-d guides v0.8, `pd-disaggregation`, `tiered-prefix-cache`, `agentic-serving`.

use llmd_crds::{KvBackend, KvFailurePolicy, KvOffloadConnector, Role};
use serde::Serialize;

use super::offload;
use crate::validated::{ValidatedKv, ValidatedOffload, ValidatedPool, ValidatedTransfer};

/// In this order, whatever `serde_json` was built with.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "vLLM's names")]
struct Connector {
    kv_connector: &'static str,
    kv_role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_load_failure_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_connector_extra_config: Option<Extra>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Extra {
    Nixl { backends: [&'static str; 1] },
    Native(offload::Native),
    Mooncake { load_async: bool },
    Several { connectors: Vec<Connector> },
}

/// The configuration of an engine of `pool`; none where its blocks stay in its accelerators.
pub(super) fn config(kv: &ValidatedKv, pool: &ValidatedPool) -> Option<String> {
    if pool.role == Role::Encode {
        return None;
    }
    let transfer = kv.transfer.as_ref().map(nixl);
    let offload = kv.offload.as_ref().map(|offload| below(kv, offload));
    let config = match (transfer, offload) {
        (Some(transfer), Some(offload)) => Connector {
            kv_connector: "MultiConnector",
            kv_role: "kv_both",
            kv_load_failure_policy: transfer.kv_load_failure_policy,
            kv_connector_extra_config: Some(Extra::Several {
                connectors: vec![
                    Connector {
                        kv_load_failure_policy: None,
                        ..transfer
                    },
                    offload,
                ],
            }),
        },
        (one, other) => one.or(other)?,
    };
    // strings and numbers only: there is nothing that JSON cannot say
    serde_json::to_string(&config).ok()
}

fn nixl(transfer: &ValidatedTransfer) -> Connector {
    Connector {
        kv_connector: "NixlConnector",
        kv_role: "kv_both",
        kv_load_failure_policy: transfer.failure_policy.map(|policy| match policy {
            KvFailurePolicy::Fail => "fail",
            KvFailurePolicy::Recompute => "recompute",
        }),
        kv_connector_extra_config: transfer.backend.map(|backend| Extra::Nixl {
            backends: [self::backend(backend)],
        }),
    }
}

/// The library's name, as NIXL has it.
pub(super) const fn backend(backend: KvBackend) -> &'static str {
    match backend {
        KvBackend::Ucx => "UCX",
        KvBackend::Libfabric => "LIBFABRIC",
    }
}

fn below(kv: &ValidatedKv, offload: &ValidatedOffload) -> Connector {
    let (kv_connector, extra) = match offload.connector {
        KvOffloadConnector::Native => (
            "OffloadingConnector",
            Some(Extra::Native(offload::native(kv, offload))),
        ),
        // its settings are variables
        KvOffloadConnector::LmCache => ("LMCacheConnectorV1", None),
        KvOffloadConnector::Mooncake => {
            // decoding goes on while blocks arrive; a store of its own may keep them on disks
            let is_standalone = offload.cpu_bytes == 0;
            let extra = is_standalone.then_some(Extra::Mooncake { load_async: true });
            ("MooncakeStoreConnector", extra)
        }
    };
    Connector {
        kv_connector,
        kv_role: "kv_both",
        kv_load_failure_policy: None,
        kv_connector_extra_config: extra,
    }
}
