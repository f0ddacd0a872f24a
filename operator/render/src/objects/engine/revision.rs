//! The revision that engines of all roles share: KV blocks move between equal ones only, so a router pairs no others.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use xxhash_rust::xxh64::Xxh64;

use super::template;
use crate::names;
use crate::options::RenderOptions;
use crate::validated::ValidatedDeployment;

/// Digits of a revision in the name of a workload.
const SHORT: usize = 8;

/// Of what all pools run; numbers of pods are no part of it. None where engines do not depend on each other.
pub(super) fn of(deployment: &ValidatedDeployment, options: &RenderOptions) -> Option<String> {
    deployment.is_disaggregated().then(|| {
        let mut hash = Xxh64::new(0);
        for pool in &deployment.pools {
            // not through a value, whose order of keys depends on how serde_json was built
            let template = serde_json::to_string(&template(deployment, pool, options));
            hash.update(template.unwrap_or_default().as_bytes());
        }
        format!("{:016x}", hash.digest())
    })
}

/// `template` with the revision as a label.
pub(super) fn mark(template: &mut PodTemplateSpec, revision: &str) {
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(names::REVISION.to_owned(), revision.to_owned());
}

/// What tells the workload of a revision from those of others, in names.
pub(super) fn short(revision: &str) -> &str {
    revision.get(..SHORT).unwrap_or(revision)
}
