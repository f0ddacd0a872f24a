//! The well-lit paths that are compiled in.

use std::sync::LazyLock;

use llmd_crds::WellLitPath;

use crate::field_error::{FieldError, Problem};

/// Every released version stays here: an upgrade of the operator restarts no engine.
const SOURCES: [&str; 2] = [
    include_str!("../paths/optimized-baseline.yaml"),
    include_str!("../paths/simulated.yaml"),
];

static BUILTIN: LazyLock<Vec<WellLitPath>> = LazyLock::new(|| {
    // A test decodes and renders each of them, so nothing is lost here.
    SOURCES
        .iter()
        .filter_map(|source| serde_yaml::from_str(source).ok())
        .collect()
});

/// The path of a resource that names none.
pub(crate) const DEFAULT: &str = "optimized-baseline";

/// The compiled-in paths, ordered by name, then version.
pub fn builtin_paths() -> &'static [WellLitPath] {
    &BUILTIN
}

pub(crate) fn name(path: &WellLitPath) -> &str {
    path.metadata.name.as_deref().unwrap_or_default()
}

/// Finds a path by name and version; a supplied one overrides a built-in one of its name.
///
/// # Errors
/// `PathNotFound`: names what exists and what is nearest.
pub fn find<'a>(
    wanted: Option<&str>,
    version: Option<&str>,
    supplied: &'a [WellLitPath],
) -> Result<(&'a WellLitPath, bool), FieldError> {
    let wanted = wanted.unwrap_or(DEFAULT);
    let from = |paths: &'a [WellLitPath]| {
        paths
            .iter()
            .filter(|path| name(path) == wanted)
            .collect::<Vec<_>>()
    };
    let (found, builtin) = match from(supplied) {
        found if !found.is_empty() => (found, false),
        _ => (from(builtin_paths()), true),
    };
    if found.is_empty() {
        let known: Vec<&str> = builtin_paths().iter().chain(supplied).map(name).collect();
        let message = format!("PathNotFound: no such well-lit path; known: {}", known.join(", "));
        return Err(FieldError::new("spec.path", Problem::NotFound, message)
            .value(wanted)
            .nearest(wanted, known));
    }
    let chosen = match version {
        Some(version) => found.iter().find(|path| path.spec.version == version),
        // Versions are `v1`, `v2`, …: the longest, then greatest, is the newest.
        None => found
            .iter()
            .max_by_key(|path| (path.spec.version.len(), path.spec.version.clone())),
    };
    chosen.map(|path| (*path, builtin)).ok_or_else(|| {
        let known: Vec<&str> = found.iter().map(|path| path.spec.version.as_str()).collect();
        let given = version.unwrap_or_default();
        let message = format!("path {wanted} has no such version; known: {}", known.join(", "));
        FieldError::new("spec.pathVersion", Problem::NotFound, message)
            .value(given)
            .nearest(given, known)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compiled_in_path_decodes() {
        let names: Vec<&str> = builtin_paths().iter().map(name).collect();
        assert_eq!(names, ["optimized-baseline", "simulated"]);
        assert_eq!(names.len(), SOURCES.len());
    }

    #[test]
    fn a_missing_path_names_the_nearest() {
        let error = find(Some("simulate"), None, &[]).unwrap_err().to_string();
        assert!(
            error.contains("PathNotFound") && error.contains("did you mean \"simulated\""),
            "{error}"
        );
        let error = find(Some("simulated"), Some("v9"), &[]).unwrap_err().to_string();
        assert!(
            error.contains("spec.pathVersion") && error.contains("known: v1"),
            "{error}"
        );
    }

    #[test]
    fn a_supplied_path_overrides_and_the_newest_version_wins() {
        let mut own = builtin_paths()[1].clone();
        own.spec.version = "v9".into();
        let mut newer = own.clone();
        newer.spec.version = "v10".into();
        let supplied = [own, newer];
        let (found, builtin) = find(Some("simulated"), None, &supplied).unwrap();
        assert_eq!((found.spec.version.as_str(), builtin), ("v10", false));
    }
}
