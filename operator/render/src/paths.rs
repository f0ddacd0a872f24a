//! The well-lit paths that are compiled in.

use std::sync::LazyLock;

use llmd_crds::WellLitPath;

use crate::field_error::{FieldError, Problem};

/// Every released version stays here as it was, because an upgrade of the operator restarts no engine; a change is
/// a new version.
const SOURCES: [&str; 8] = [
    include_str!("../paths/encode-disaggregation/v1.yaml"),
    include_str!("../paths/optimized-baseline/v1.yaml"),
    include_str!("../paths/p2p-kv-cache-sharing/v1.yaml"),
    include_str!("../paths/prefill-decode/v1.yaml"),
    include_str!("../paths/simulated/v1.yaml"),
    include_str!("../paths/simulated-prefill-decode/v1.yaml"),
    include_str!("../paths/tiered-prefix-cache/v1.yaml"),
    include_str!("../paths/wide-expert-parallel/v1.yaml"),
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

/// Finds a path by name and version. Without a version a supplied one overrides a built-in one of its name; a pinned
/// version that only the built-in one has is still that one, so that an override moves nothing that runs.
///
/// # Errors
/// `PathNotFound`, or no such version: names what exists and what is nearest.
pub fn find<'a>(
    wanted: Option<&str>,
    version: Option<&str>,
    supplied: &'a [WellLitPath],
) -> Result<(&'a WellLitPath, bool), FieldError> {
    let wanted = wanted.unwrap_or(DEFAULT);
    let named = |path: &&'a WellLitPath| name(path) == wanted;
    let own: Vec<&WellLitPath> = supplied.iter().filter(named).collect();
    let builtin: Vec<&WellLitPath> = builtin_paths().iter().filter(named).collect();
    let Some(newest) = newest(&own)
        .map(|path| (path, false))
        .or_else(|| newest(&builtin).map(|path| (path, true)))
    else {
        let known: Vec<&str> = builtin_paths().iter().chain(supplied).map(name).collect();
        let message = format!("PathNotFound: no such well-lit path; known: {}", known.join(", "));
        return Err(FieldError::new("spec.path", Problem::NotFound, message)
            .value(wanted)
            .nearest(wanted, known));
    };
    let Some(version) = version else {
        return Ok(newest);
    };
    let of = |paths: &[&'a WellLitPath]| paths.iter().copied().find(|path| path.spec.version == version);
    let found = of(&own).map(|path| (path, false));
    found
        .or_else(|| of(&builtin).map(|path| (path, true)))
        .ok_or_else(|| {
            let mut known: Vec<&str> = own
                .iter()
                .chain(&builtin)
                .map(|path| path.spec.version.as_str())
                .collect();
            known.sort_unstable();
            known.dedup();
            let message = format!("path {wanted} has no such version; known: {}; `llmd diff --to-path-version` shows what a move changes", known.join(", "));
            FieldError::new("spec.pathVersion", Problem::NotFound, message)
                .value(version)
                .nearest(version, known)
        })
}

/// Versions are `v1`, `v2`, …: the longest, then greatest, is the newest.
fn newest<'a>(paths: &[&'a WellLitPath]) -> Option<&'a WellLitPath> {
    let mut paths = paths.to_vec();
    paths.sort_by_key(|path| (path.spec.version.len(), path.spec.version.clone()));
    paths.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compiled_in_path_decodes() {
        let names: Vec<&str> = builtin_paths().iter().map(name).collect();
        assert_eq!(
            names,
            [
                "encode-disaggregation",
                "optimized-baseline",
                "p2p-kv-cache-sharing",
                "prefill-decode",
                "simulated",
                "simulated-prefill-decode",
                "tiered-prefix-cache",
                "wide-expert-parallel"
            ]
        );
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
        let mut own = find(Some("simulated"), None, &[]).unwrap().0.clone();
        own.spec.version = "v9".into();
        let mut newer = own.clone();
        newer.spec.version = "v10".into();
        let supplied = [own, newer];
        let found = |version| {
            let (found, builtin) = find(Some("simulated"), version, &supplied).unwrap();
            (found.spec.version.as_str(), builtin)
        };
        assert_eq!(found(None), ("v10", false));
        // what was pinned before the override stays
        assert_eq!(found(Some("v1")), ("v1", true));
        let error = find(Some("simulated"), Some("v2"), &supplied).unwrap_err();
        assert!(error.to_string().contains("known: v1, v10, v9"), "{error}");
    }
}
