//! Names, labels and selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names;
use crate::validated::ValidatedDeployment;

pub(super) fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Labels of every object; the user's first, so that they cannot replace ours.
pub(super) fn labels(deployment: &ValidatedDeployment, component: &str) -> BTreeMap<String, String> {
    let mut labels = deployment.labels.clone();
    let path = format!("{}-{}", deployment.path.name, deployment.path.version);
    labels.extend(map([
        ("app.kubernetes.io/name", "llmd"),
        ("app.kubernetes.io/managed-by", "llmd"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/part-of", &deployment.name),
        (names::DEPLOYMENT, &deployment.name),
        (names::PATH_VERSION, &names::label_value(&path)),
    ]));
    labels
}

pub(super) fn metadata(deployment: &ValidatedDeployment, name: String, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(deployment.namespace.clone()),
        labels: Some(labels(deployment, component)),
        annotations: (!deployment.annotations.is_empty()).then(|| deployment.annotations.clone()),
        ..ObjectMeta::default()
    }
}

/// `<deployment>-epp`: the router's objects.
pub(super) fn epp_name(deployment: &ValidatedDeployment) -> String {
    format!("{}-epp", deployment.name)
}

/// What selects the pods that serve the model: fixed for the life of the deployment.
pub(super) fn serving_selector(deployment: &ValidatedDeployment) -> BTreeMap<String, String> {
    map([(names::DEPLOYMENT, &deployment.name), (names::SERVING, "true")])
}
