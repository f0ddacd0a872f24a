//! The WellLitPath that a deployment was rendered from, kept beside it: the resource has one version, and an edit of it
//! must not take away what runs.
//!
//! The copy is an immutable ConfigMap of the deployment. Its name says path and version, so another version is another
//! object, and its text is handed on as it was read: a later release may write the same path in other bytes, which an
//! immutable object would refuse.

use llmd_crds::WellLitPath;
use serde_json::json;
use xxhash_rust::xxh64::xxh64;

use crate::decode::{Document, decode};
use crate::field_error::{FieldError, Problem};
use crate::paths;

/// Key of the ConfigMap's only entry.
pub const KEPT_PATH_FILE: &str = "path.yaml";

/// Name of the ConfigMap that keeps `version` of `path` for a deployment.
pub fn kept_path_name(deployment: &str, path: &str, version: &str) -> String {
    // neither contains a slash: a path's name is a resource's
    let digest = xxh64(format!("{path}/{version}").as_bytes(), 0);
    format!("{deployment}-path-{digest:016x}")
}

/// What is kept of a path.
pub(crate) fn text(path: &WellLitPath) -> String {
    let kept = json!({
        "apiVersion": "llmd.dev/v1alpha1",
        "kind": "WellLitPath",
        "metadata": {"name": paths::name(path)},
        "spec": path.spec,
    });
    // it has string keys only, which is all that could go wrong
    serde_yaml::to_string(&kept).unwrap_or_default()
}

/// The kept path, if it is the wanted one.
///
/// # Errors
/// The text is not a path: somebody else wrote it, or a later release did.
pub(crate) fn wanted(
    text: &str,
    path: Option<&str>,
    version: Option<&str>,
) -> Result<Option<WellLitPath>, FieldError> {
    let unreadable = |why: String| {
        let message = format!("the kept copy of the path cannot be read; delete its ConfigMap: {why}");
        FieldError::new("spec.pathVersion", Problem::Invalid, message)
    };
    let mut documents = decode(text).map_err(|error| unreadable(error.to_string()))?;
    let Some(Document::Path(kept)) = documents.pop() else {
        return Err(unreadable("it is no WellLitPath".to_owned()));
    };
    let is_wanted =
        paths::name(&kept) == path.unwrap_or(paths::DEFAULT) && version == Some(&*kept.spec.version);
    Ok(is_wanted.then_some(*kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_path_is_the_same_path_and_serves_its_own_version_only() {
        let mut path = paths::find(Some("simulated"), None, &[]).unwrap().0.clone();
        path.metadata.uid = Some("of the cluster".to_owned());
        let kept = text(&path);
        assert!(!kept.contains("of the cluster"), "{kept}");
        let found = wanted(&kept, Some("simulated"), Some("v1")).unwrap().unwrap();
        assert_eq!((found.spec, text(&path)), (path.spec, kept.clone()));
        for (name, version) in [
            (Some("simulated"), Some("v2")),
            (Some("other"), Some("v1")),
            (Some("simulated"), None),
            (None, Some("v1")),
        ] {
            assert_eq!(
                wanted(&kept, name, version).unwrap(),
                None,
                "{name:?} {version:?}"
            );
        }
        let error = wanted("kind: ConfigMap", None, None).unwrap_err().to_string();
        assert!(error.contains("delete its ConfigMap"), "{error}");
    }

    #[test]
    fn the_name_tells_paths_and_versions_apart() {
        let name = kept_path_name("demo", "own", "v1");
        assert!(name.starts_with("demo-path-") && name.len() == 26, "{name}");
        assert_ne!(name, kept_path_name("demo", "own", "v2"));
        assert_ne!(name, kept_path_name("demo", "other", "v1"));
    }
}
