//! Quota for all pods, and the API server's own word on one pod of each workload: Pod Security, limits, policies.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, ResourceQuota};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};

use super::super::quantity::{shown, thousandths};
use super::super::{Session, api_failure, is_forbidden};
use super::{Check, Verdict, accelerators};
use crate::exit::Failure;

pub(super) async fn check(session: &Session, workloads: &[&Deployment]) -> Result<Vec<Check>, Failure> {
    let namespaces: Api<Namespace> = Api::all(session.client.clone());
    let mut checks = Vec::new();
    match namespaces.get_opt(&session.namespace).await {
        Ok(Some(found)) => {
            let labels = found.metadata.labels.unwrap_or_default();
            let level = labels
                .get("pod-security.kubernetes.io/enforce")
                .map_or("not enforced", String::as_str);
            checks.push(Check::ok(
                "pod security",
                format!("namespace {}: {level}", session.namespace),
            ));
        }
        Ok(None) => {
            return Ok(vec![Check::new(
                "namespace",
                Verdict::Failed,
                format!("there is no namespace {}", session.namespace),
                format!("kubectl create namespace {}", session.namespace),
            )]);
        }
        Err(error) if is_forbidden(&error) => checks.push(Check::unknown("pod security", &error)),
        Err(error) => return Err(api_failure("cannot read the namespace", &error)),
    }
    checks.extend(quota(session, workloads).await?);
    for workload in workloads {
        checks.extend(pod(session, workload).await?);
    }
    Ok(checks)
}

/// What is left of each quota against what all pods request together.
async fn quota(session: &Session, workloads: &[&Deployment]) -> Result<Vec<Check>, Failure> {
    const CHECK: &str = "quota";
    let api: Api<ResourceQuota> = Api::namespaced(session.client.clone(), &session.namespace);
    let quotas = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) if is_forbidden(&error) => return Ok(vec![Check::unknown(CHECK, &error)]),
        Err(error) => return Err(api_failure("cannot list quotas", &error)),
    };
    let need = need(workloads);
    let mut checks = Vec::new();
    for quota in &quotas {
        let name = quota.metadata.name.as_deref().unwrap_or_default();
        let status = quota.status.clone().unwrap_or_default();
        let hard = status
            .hard
            .or_else(|| quota.spec.as_ref()?.hard.clone())
            .unwrap_or_default();
        let used = status.used.unwrap_or_default();
        for (resource, limit) in hard {
            let (Some(need), Some(limit)) = (need.get(&resource), thousandths(&limit.0)) else {
                continue;
            };
            let used = used
                .get(&resource)
                .and_then(|used| thousandths(&used.0))
                .unwrap_or(0);
            checks.push(if used + need > limit {
                Check::new(
                    CHECK,
                    Verdict::Failed,
                    format!(
                        "{name}: {resource}: needs {}, {} of {} are left",
                        shown(&resource, *need),
                        shown(&resource, limit - used),
                        shown(&resource, limit)
                    ),
                    format!(
                        "raise the quota or lower the pools; what is used: kubectl describe quota {name}"
                    ),
                )
            } else {
                Check::ok(
                    CHECK,
                    format!("{name}: {resource}: {} fit", shown(&resource, *need)),
                )
            });
        }
    }
    Ok(checks)
}

/// Under each name that a quota may have for it.
fn need(workloads: &[&Deployment]) -> BTreeMap<String, i128> {
    let mut need: BTreeMap<String, i128> = BTreeMap::new();
    for workload in workloads {
        let Some(spec) = &workload.spec else { continue };
        let replicas = i128::from(spec.replicas.unwrap_or(1));
        for name in ["pods", "count/pods"] {
            *need.entry(name.to_owned()).or_default() += replicas * 1000;
        }
        for container in spec
            .template
            .spec
            .iter()
            .flat_map(accelerators::running_containers)
        {
            let Some(resources) = &container.resources else {
                continue;
            };
            for (prefix, list) in [("requests.", &resources.requests), ("limits.", &resources.limits)] {
                for (resource, quantity) in list.iter().flatten() {
                    let amount = thousandths(&quantity.0).unwrap_or(0) * replicas;
                    *need.entry(format!("{prefix}{resource}")).or_default() += amount;
                    if prefix == "requests." && matches!(resource.as_str(), "cpu" | "memory") {
                        *need.entry(resource.clone()).or_default() += amount;
                    }
                }
            }
        }
    }
    need
}

/// A dry run of one pod: nothing is stored.
async fn pod(session: &Session, workload: &Deployment) -> Result<Option<Check>, Failure> {
    const CHECK: &str = "admission";
    let name = workload.metadata.name.as_deref().unwrap_or_default();
    let Some(template) = workload.spec.as_ref().map(|spec| &spec.template) else {
        return Ok(None);
    };
    let pod = Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-preflight-")),
            ..template.metadata.clone().unwrap_or_default()
        },
        spec: Some(PodSpec {
            // the pod's own account does not exist before the operator makes it
            service_account_name: Some("default".to_owned()),
            ..template.spec.clone().unwrap_or_default()
        }),
        status: None,
    };
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    Ok(Some(match api.create(&dry, &pod).await {
        Ok(_) => Check::ok(CHECK, format!("{name}: the API server would take its pods")),
        // its own "forbidden" is about the user, the others are about the pod
        Err(kube::Error::Api(status)) if status.message.contains("cannot create resource") => {
            Check::unknown(CHECK, &kube::Error::Api(status))
        }
        Err(kube::Error::Api(status)) => {
            let fix = if status.message.contains("violates PodSecurity") {
                format!(
                    "take back what the deployment adds to its pods, or: kubectl label namespace {} \
                     pod-security.kubernetes.io/enforce=baseline --overwrite",
                    session.namespace
                )
            } else {
                "change what the message names".to_owned()
            };
            Check::new(CHECK, Verdict::Failed, format!("{name}: {}", status.message), fix)
        }
        Err(error) => return Err(api_failure("cannot ask for a pod", &error)),
    }))
}
