//! What was used once stays in use until the spec says otherwise: the path's version, and with it the release whose
//! images engines run, and of a path that is a resource the text itself. So neither an upgrade of the operator nor an
//! edit of a path restarts an engine.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject};
use kube::{Client, ResourceExt};
use llmd_crds::{LLMDeployment, LLMDeploymentStatus, PathStatus};
use llmd_render::{KEPT_PATH_FILE, PathSource, ResolvedPath, kept_path_name};

use crate::error::ReconcileError;

/// `status.path.source` of a path that is a resource.
const RESOURCE: &str = "Resource";

/// Puts the pinned version into a spec that names none.
pub(crate) fn pin(deployment: &mut LLMDeployment, old: &LLMDeploymentStatus) {
    let Some(used) = &old.path else { return };
    let spec = &mut deployment.spec;
    let same = spec.path.as_ref().is_none_or(|path| *path == used.name);
    if same && spec.path_version.is_none() {
        spec.path = Some(used.name.clone());
        spec.path_version = Some(used.version.clone());
    }
}

/// The pins of a resource that uses `path` now, by an operator of release `own`.
pub(crate) fn pinned(path: &ResolvedPath, old: &LLMDeploymentStatus, own: &str) -> PathStatus {
    let used = old.path.as_ref();
    let release = used.and_then(|used| used.release_of(&path.name, &path.version));
    PathStatus {
        name: path.name.clone(),
        version: path.version.clone(),
        source: match path.source {
            PathSource::Builtin => "Builtin".to_owned(),
            PathSource::Resource => RESOURCE.to_owned(),
        },
        release: Some(release.unwrap_or(own).to_owned()),
    }
}

/// The text of the pinned path as it was when the pin was set. Only a path that is a resource can have changed since.
pub(crate) async fn kept(
    client: &Client,
    object: &DynamicObject,
    old: &LLMDeploymentStatus,
) -> Result<Option<String>, ReconcileError> {
    let Some(used) = old.path.as_ref().filter(|used| used.source == RESOURCE) else {
        return Ok(None);
    };
    let api: Api<ConfigMap> =
        Api::namespaced(client.clone(), object.namespace().as_deref().unwrap_or_default());
    let name = kept_path_name(&object.name_any(), &used.name, &used.version);
    let found = api.get_opt(&name).await;
    let found = found.map_err(|error| ReconcileError::api("get", "ConfigMap", name, error))?;
    let ours = found.filter(|found| {
        let mut owners = found.owner_references().iter();
        owners.any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref())
    });
    Ok(ours.and_then(|kept| kept.data?.remove(KEPT_PATH_FILE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str, version: &str) -> ResolvedPath {
        ResolvedPath {
            name: name.into(),
            version: version.into(),
            source: PathSource::Builtin,
        }
    }

    fn status(path: PathStatus) -> LLMDeploymentStatus {
        LLMDeploymentStatus {
            path: Some(path),
            ..LLMDeploymentStatus::default()
        }
    }

    #[test]
    fn the_release_stays_with_path_and_version_and_moves_with_either() {
        let first = pinned(&path("a", "v1"), &LLMDeploymentStatus::default(), "v0.1.0");
        assert_eq!(first.release.as_deref(), Some("v0.1.0"));
        let old = status(first);
        let later = |path| pinned(&path, &old, "v0.2.0").release;
        assert_eq!(later(path("a", "v1")).as_deref(), Some("v0.1.0"));
        assert_eq!(later(path("a", "v2")).as_deref(), Some("v0.2.0"));
        assert_eq!(later(path("b", "v1")).as_deref(), Some("v0.2.0"));
    }

    #[test]
    fn a_spec_without_a_version_gets_the_pinned_one_unless_it_names_another_path() {
        let old = status(pinned(
            &path("a", "v1"),
            &LLMDeploymentStatus::default(),
            "v0.1.0",
        ));
        let pin_of = |name: Option<&str>, version: Option<&str>| {
            let mut deployment = LLMDeployment::default();
            deployment.spec.path = name.map(str::to_owned);
            deployment.spec.path_version = version.map(str::to_owned);
            pin(&mut deployment, &old);
            deployment.spec.path_version
        };
        assert_eq!(pin_of(None, None).as_deref(), Some("v1"));
        assert_eq!(pin_of(Some("a"), None).as_deref(), Some("v1"));
        assert_eq!(pin_of(Some("a"), Some("v2")).as_deref(), Some("v2"));
        assert_eq!(pin_of(Some("b"), None), None);
    }
}
