//! What pods refer to by name: claims with their storage, Secrets, ConfigMaps of others.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodSpec, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};

use super::super::{Session, api_failure, is_forbidden};
use super::{Check, Verdict};
use crate::exit::Failure;

pub(super) async fn check(session: &Session, workloads: &[&Deployment]) -> Result<Vec<Check>, Failure> {
    let mut claims: BTreeMap<String, i32> = BTreeMap::new();
    let mut secrets = std::collections::BTreeSet::new();
    for workload in workloads {
        let Some(spec) = &workload.spec else { continue };
        let Some(pod) = &spec.template.spec else { continue };
        for name in claim_names(pod) {
            *claims.entry(name).or_default() += spec.replicas.unwrap_or(1);
        }
        secrets.extend(secret_names(pod));
    }
    let mut checks = Vec::new();
    for (name, pods) in claims {
        checks.push(claim(session, &name, pods).await?);
    }
    for name in secrets {
        checks.push(secret(session, &name).await?);
    }
    Ok(checks)
}

fn claim_names(pod: &PodSpec) -> Vec<String> {
    pod.volumes
        .iter()
        .flatten()
        .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()))
        .collect()
}

/// Secrets that the pod cannot start without.
fn secret_names(pod: &PodSpec) -> Vec<String> {
    let pull = pod
        .image_pull_secrets
        .iter()
        .flatten()
        .map(|one| one.name.clone());
    let environment = pod.containers.iter().flat_map(|container| {
        container.env.iter().flatten().filter_map(|variable| {
            let reference = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
            (reference.optional != Some(true)).then(|| reference.name.clone())
        })
    });
    let volumes = pod.volumes.iter().flatten().filter_map(|volume| {
        let secret = volume.secret.as_ref()?;
        (secret.optional != Some(true)).then(|| secret.secret_name.clone())?
    });
    pull.chain(environment).chain(volumes).collect()
}

async fn claim(session: &Session, name: &str, pods: i32) -> Result<Check, Failure> {
    const CHECK: &str = "claim";
    let api: Api<PersistentVolumeClaim> = Api::namespaced(session.client.clone(), &session.namespace);
    let found = match api.get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return Ok(Check::new(
                CHECK,
                Verdict::Failed,
                format!(
                    "there is no PersistentVolumeClaim {name} in namespace {}",
                    session.namespace
                ),
                "create it and fill it with the weights, or use an hf:// model",
            ));
        }
        Err(error) if is_forbidden(&error) => return Ok(Check::unknown(CHECK, &error)),
        Err(error) => return Err(api_failure("cannot read a claim", &error)),
    };
    let phase = found
        .status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default();
    let spec = found.spec.unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default();
    let many = modes
        .iter()
        .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany");
    if pods > 1 && !many {
        return Ok(Check::new(
            CHECK,
            Verdict::Failed,
            format!(
                "{name}: {pods} pods share it, but its access mode is {}",
                modes.join(",")
            ),
            "use a claim with ReadOnlyMany or ReadWriteMany, or one replica",
        ));
    }
    if phase == "Bound" {
        return Ok(Check::ok(CHECK, format!("{name} is bound, {}", modes.join(","))));
    }
    storage(session, name, spec.storage_class_name).await
}

/// A claim that is not bound yet needs a class that can bind it.
async fn storage(session: &Session, claim: &str, class: Option<String>) -> Result<Check, Failure> {
    const CHECK: &str = "claim";
    let api: Api<StorageClass> = Api::all(session.client.clone());
    let classes = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) if is_forbidden(&error) => return Ok(Check::unknown(CHECK, &error)),
        Err(error) => return Err(api_failure("cannot list storage classes", &error)),
    };
    let known: Vec<String> = classes.into_iter().filter_map(|one| one.metadata.name).collect();
    Ok(match class {
        Some(class) if !class.is_empty() && !known.contains(&class) => Check::new(
            CHECK,
            Verdict::Failed,
            format!("{claim}: there is no StorageClass {class}"),
            format!("use one of: {}", known.join(", ")),
        ),
        _ => Check::new(
            CHECK,
            Verdict::Warning,
            format!("{claim} is not bound yet"),
            format!("expected where volumes are bound for the first pod; else: kubectl describe pvc {claim}"),
        ),
    })
}

/// Only whether it exists: its content is not asked for.
async fn secret(session: &Session, name: &str) -> Result<Check, Failure> {
    const CHECK: &str = "secret";
    let api: Api<Secret> = Api::namespaced(session.client.clone(), &session.namespace);
    match api.get_metadata_opt(name).await {
        Ok(Some(_)) => Ok(Check::ok(CHECK, format!("{name} exists"))),
        Ok(None) => Ok(Check::new(
            CHECK,
            Verdict::Failed,
            format!("there is no Secret {name} in namespace {}", session.namespace),
            format!("kubectl create secret generic {name} -n {} …", session.namespace),
        )),
        Err(error) if is_forbidden(&error) => Ok(Check::unknown(CHECK, &error)),
        Err(error) => Err(api_failure("cannot look for a Secret", &error)),
    }
}
