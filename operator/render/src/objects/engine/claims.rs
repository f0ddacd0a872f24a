//! Devices that a pod claims instead of counting a resource (dynamic resource allocation).
//! Source: llm-d guides v0.8, overlays `gke` and `xpu` of `pd-disaggregation`.

use k8s_openapi::api::core::v1::{PodResourceClaim, ResourceClaim};
use llmd_crds::{
    DeviceClaim, DeviceConstraint, DeviceRequest, ExactDeviceRequest, ResourceClaimSpec,
    ResourceClaimTemplate, ResourceClaimTemplateSpec,
};
use xxhash_rust::xxh64::xxh64;

use super::super::meta::metadata;
use super::transfer;
use crate::validated::{ValidatedDeployment, ValidatedPool};

const ACCELERATORS: &str = "accelerators";
const NETWORK: &str = "network";

/// What one claim of a pod has, and how many such claims there are.
fn claim(deployment: &ValidatedDeployment, pool: &ValidatedPool) -> Option<(DeviceClaim, i32)> {
    let accelerators = pool.accelerators.as_ref().and_then(|all| all.class());
    let network = transfer::devices(deployment, pool).and_then(|all| all.class());
    let request = |name: &str, (class, count): (&str, i32)| DeviceRequest {
        name: name.to_owned(),
        exactly: ExactDeviceRequest {
            device_class_name: class.to_owned(),
            allocation_mode: "ExactCount".to_owned(),
            count,
        },
    };
    let transfer = deployment.kv.transfer.as_ref();
    let attribute = transfer.and_then(|transfer| transfer.match_attribute.clone());
    if let (Some((class, count)), Some((device, _)), Some(attribute)) = (accelerators, network, attribute) {
        // one claim for each accelerator and its device: the attribute is different from one pair to the next
        let claim = DeviceClaim {
            requests: vec![request(ACCELERATORS, (class, 1)), request(NETWORK, (device, 1))],
            constraints: vec![DeviceConstraint {
                requests: [ACCELERATORS, NETWORK].map(str::to_owned).into(),
                match_attribute: attribute,
            }],
        };
        return Some((claim, count));
    }
    let requests: Vec<DeviceRequest> = [(ACCELERATORS, accelerators), (NETWORK, network)]
        .into_iter()
        .filter_map(|(name, devices)| Some(request(name, devices?)))
        .collect();
    let claim = DeviceClaim {
        requests,
        constraints: Vec::new(),
    };
    (!claim.requests.is_empty()).then_some((claim, 1))
}

/// What each pod of `pool` claims. A template cannot be changed: another one has another name.
pub(super) fn template(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
) -> Option<ResourceClaimTemplate> {
    let (devices, _) = claim(deployment, pool)?;
    let text = serde_json::to_string(&devices).unwrap_or_default();
    let digest = format!("{:016x}", xxh64(text.as_bytes(), 0));
    let short = digest.get(..8).unwrap_or(&digest);
    let name = format!("{}-{}-{short}", deployment.name, pool.name);
    Some(ResourceClaimTemplate {
        metadata: metadata(deployment, name, "modelserver"),
        spec: ResourceClaimTemplateSpec {
            spec: ResourceClaimSpec { devices },
        },
    })
}

/// The claims of a pod, and their names in its engine's container.
pub(super) fn of(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
) -> Option<(Vec<PodResourceClaim>, Vec<ResourceClaim>)> {
    let (_, count) = claim(deployment, pool)?;
    let template = template(deployment, pool)?.metadata.name;
    let names = || (0..count).map(|number| format!("devices-{number}"));
    let claims = names().map(|name| PodResourceClaim {
        name,
        resource_claim_template_name: template.clone(),
        ..PodResourceClaim::default()
    });
    let uses = names().map(|name| ResourceClaim {
        name,
        ..ResourceClaim::default()
    });
    Some((claims.collect(), uses.collect()))
}
