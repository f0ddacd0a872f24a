//! Claims with weights: the model itself, or a store of downloads that pods share.

use k8s_openapi::api::core::v1::{EnvVar, PersistentVolumeClaimVolumeSource, Volume, VolumeMount};

use crate::objects::pod::{env, mount};
use crate::validated::{ModelSource, ValidatedModel};

/// Where a claim is mounted.
pub(super) const DIRECTORY: &str = "/model-cache";

/// The claim and its mount.
pub(super) fn volume(model: &ValidatedModel) -> Option<(Volume, VolumeMount)> {
    let (claim, read_only) = match (&model.source, &model.downloads) {
        (ModelSource::Claim { claim, .. }, _) => (claim, true),
        (ModelSource::Hub { .. }, Some((claim, read_only))) => (claim, *read_only),
        _ => return None,
    };
    let volume = Volume {
        name: "model".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.clone(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    };
    Some((volume, mount("model", DIRECTORY, read_only)))
}

/// What tells the engine where downloads are, and that none is wanted.
pub(super) fn variables(model: &ValidatedModel) -> Vec<EnvVar> {
    let offline = || env("HF_HUB_OFFLINE", "1");
    match (&model.source, &model.downloads) {
        (ModelSource::Claim { .. }, _) => vec![offline()],
        (ModelSource::Hub { .. }, Some((_, read_only))) => {
            // The hub's cache alone: below `HF_HOME` are also tokens and code that is written at each start.
            let mut variables = vec![env("HF_HUB_CACHE", DIRECTORY)];
            variables.extend(read_only.then(offline));
            variables
        }
        _ => Vec::new(),
    }
}
