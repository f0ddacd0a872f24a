//! The copy of the path that the deployment was rendered from.

use k8s_openapi::api::core::v1::ConfigMap;

use super::meta::{map, metadata};
use crate::kept_path::{KEPT_PATH_FILE, kept_path_name};
use crate::validated::ValidatedDeployment;

/// For a path that is a resource; compiled-in versions stay by themselves.
pub(super) fn config_map(deployment: &ValidatedDeployment) -> Option<ConfigMap> {
    let text = deployment.kept_path.as_ref()?;
    let path = &deployment.path;
    let name = kept_path_name(&deployment.name, &path.name, &path.version);
    Some(ConfigMap {
        metadata: metadata(deployment, name, "well-lit-path"),
        immutable: Some(true),
        data: Some(map([(KEPT_PATH_FILE, text)])),
        ..ConfigMap::default()
    })
}
