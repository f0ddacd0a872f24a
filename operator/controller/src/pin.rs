//! What was used once stays in use until the spec says otherwise: the path's version, and with it the release whose
//! images engines run. So an upgrade of the operator restarts no engine.

use llmd_crds::{LLMDeployment, LLMDeploymentStatus, PathStatus};
use llmd_render::{PathSource, ResolvedPath};

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
            PathSource::Resource => "Resource".to_owned(),
        },
        release: Some(release.unwrap_or(own).to_owned()),
    }
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
