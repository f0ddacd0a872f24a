//! Status of WellLitPaths and AcceleratorProfiles: whether they can be read, and how many resources use them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::reflector::Store;
use llmd_crds::{AcceleratorProfile, UsageStatus, WellLitPath};
use llmd_render::decode_value;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::Shared;
use crate::dereference::{References, without_status};
use crate::status_write::STATUS_MANAGER;

/// Changes within this time are counted together.
const GATHER: Duration = Duration::from_millis(500);

/// Keeps the statuses right until `stop`.
pub(crate) async fn run(
    shared: Arc<Shared>,
    references: Arc<References>,
    deployments: Vec<Store<DynamicObject>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.usage.notified() => {}
        }
        tokio::time::sleep(GATHER).await;
        let users: Vec<Arc<DynamicObject>> = deployments.iter().flat_map(Store::state).collect();
        let paths = count(&users, |user| {
            user.data["status"]["path"]["name"].as_str().into_iter().collect()
        });
        let profiles = count(&users, |user| {
            let pools = user.data["spec"]["pools"].as_array();
            let named = pools.into_iter().flatten();
            named
                .filter_map(|pool| pool["accelerator"]["profile"].as_str())
                .collect()
        });
        let path = ApiResource::erase::<WellLitPath>(&());
        let profile = ApiResource::erase::<AcceleratorProfile>(&());
        for (resource, store, counted) in [
            (path, &references.paths, paths),
            (profile, &references.accelerators, profiles),
        ] {
            for object in store.state() {
                let used_by = counted.get(&object.name_any()).copied().unwrap_or_default();
                update(&shared, &resource, &object, used_by).await;
            }
        }
    }
}

/// Users by the name that they use; one that uses a name twice counts once.
fn count<'a>(
    users: &'a [Arc<DynamicObject>],
    names: impl Fn(&'a DynamicObject) -> Vec<&'a str>,
) -> BTreeMap<String, i32> {
    let mut counted = BTreeMap::new();
    for user in users {
        let mut names = names(user);
        names.sort_unstable();
        names.dedup();
        for name in names {
            *counted.entry(name.to_owned()).or_default() += 1;
        }
    }
    counted
}

async fn update(shared: &Shared, resource: &ApiResource, object: &DynamicObject, used_by: i32) {
    let old: UsageStatus = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
    let new = status(object, used_by, &old, Timestamp::now());
    if new == old {
        return;
    }
    let api: Api<DynamicObject> = Api::all_with(shared.client.clone(), resource);
    let name = object.name_any();
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "status": new,
    });
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    if let Err(error) = api.patch_status(&name, &parameters, &Patch::Apply(patch)).await {
        tracing::warn!(kind = resource.kind, name, %error, "status not written");
    }
}

fn status(object: &DynamicObject, used_by: i32, old: &UsageStatus, now: Timestamp) -> UsageStatus {
    let generation = object.metadata.generation;
    let (holds, reason, message) = match decode_value(without_status(object)) {
        Ok(_) => ("True", "Valid", String::new()),
        Err(error) => ("False", "InvalidSpec", error.to_string()),
    };
    let before = old.conditions.iter().find(|condition| condition.type_ == "Ready");
    let since = before
        .filter(|condition| condition.status == holds)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    UsageStatus {
        observed_generation: generation,
        used_by,
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: holds.to_owned(),
            observed_generation: generation,
            last_transition_time: since,
            reason: reason.to_owned(),
            message,
        }],
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "test data is written in place")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn users_are_counted_once_and_an_unreadable_profile_says_why() {
        let users = [
            Arc::new(object(json!({"metadata": {"name": "a"}, "spec": {"pools": [
                {"accelerator": {"profile": "h100"}}, {"accelerator": {"profile": "h100"}}]}}))),
            Arc::new(object(
                json!({"metadata": {"name": "b"}, "spec": {"pools": [{"name": "x"}]}}),
            )),
        ];
        let counted = count(&users, |user| {
            let pools = user.data["spec"]["pools"].as_array();
            pools
                .into_iter()
                .flatten()
                .filter_map(|pool| pool["accelerator"]["profile"].as_str())
                .collect()
        });
        assert_eq!(counted, BTreeMap::from([("h100".to_owned(), 1)]));

        let profile = |per_node: Value| {
            object(
                json!({"apiVersion": "llmd.dev/v1alpha1", "kind": "AcceleratorProfile",
                "metadata": {"name": "h100", "generation": 3},
                "spec": {"resourceName": "nvidia.com/gpu", "acceleratorsPerNode": per_node}}),
            )
        };
        let good = status(
            &profile(json!(8)),
            2,
            &UsageStatus::default(),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (
                good.used_by,
                good.observed_generation,
                good.conditions[0].status.as_str()
            ),
            (2, Some(3), "True")
        );
        let later = Timestamp::from_second(99).unwrap();
        assert_eq!(
            status(&profile(json!(8)), 2, &good, later),
            good,
            "nothing to write"
        );
        let bad = status(&profile(json!("many")), 2, &good, later);
        assert_eq!(
            (
                bad.conditions[0].status.as_str(),
                bad.conditions[0].reason.as_str()
            ),
            ("False", "InvalidSpec")
        );
    }
}
