//! The revision that engines of all roles share: KV blocks move between equal ones only, so a router pairs no others.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use xxhash_rust::xxh64::Xxh64;

use super::template;
use crate::names;
use crate::options::RenderOptions;
use crate::validated::ValidatedDeployment;

/// `rendered` with the revision as a label, where blocks move. Numbers of pods are no part of it.
pub(super) fn marked(
    deployment: &ValidatedDeployment,
    mut rendered: PodTemplateSpec,
    options: &RenderOptions,
) -> PodTemplateSpec {
    if deployment.is_disaggregated() {
        let mut hash = Xxh64::new(0);
        for pool in &deployment.pools {
            // not through a value, whose order of keys depends on how serde_json was built
            let template = serde_json::to_string(&template(deployment, pool, options));
            hash.update(template.unwrap_or_default().as_bytes());
        }
        let labels = rendered
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default();
        labels.insert(names::REVISION.to_owned(), format!("{:016x}", hash.digest()));
    }
    rendered
}
