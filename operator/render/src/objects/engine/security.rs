//! What an engine's pod may do: nothing, unless its network devices need more.

use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};
use llmd_crds::{KvBackend, PodSecurity};

use super::super::pod::{container_security, pod_security};
use crate::options::RenderOptions;
use crate::validated::ValidatedDeployment;

/// GPU-initiated RDMA locks memory and maps doorbells of devices, as root (guide `wide-ep-lws`).
const PRIVILEGED: [&str; 2] = ["IPC_LOCK", "SYS_RAWIO"];
/// EFA locks the memory that it reads (overlay `aws` of the guide `pd-disaggregation`).
const LIBFABRIC: [&str; 1] = ["IPC_LOCK"];

pub(super) fn pod(deployment: &ValidatedDeployment, options: &RenderOptions) -> PodSecurityContext {
    let mut security = pod_security(options);
    if deployment.pod_security == PodSecurity::Privileged {
        security.run_as_non_root = None;
        security.run_as_user = Some(0);
        security.run_as_group = Some(0);
        security.fs_group = None;
    }
    security
}

pub(super) fn container(deployment: &ValidatedDeployment) -> SecurityContext {
    let mut security = container_security();
    let backend = deployment
        .kv
        .transfer
        .as_ref()
        .and_then(|transfer| transfer.backend);
    let capabilities: &[&str] = match (deployment.pod_security, backend) {
        (PodSecurity::Privileged, _) => &PRIVILEGED,
        (PodSecurity::Restricted, Some(KvBackend::Libfabric)) => &LIBFABRIC,
        (PodSecurity::Restricted, _) => &[],
    };
    if !capabilities.is_empty() {
        let added = capabilities.iter().map(|name| (*name).to_owned()).collect();
        security.capabilities.get_or_insert_default().add = Some(added);
    }
    if deployment.pod_security == PodSecurity::Privileged {
        // kernels are compiled into directories that differ from one library to the next
        security.read_only_root_filesystem = None;
    }
    security
}
