//! The InferencePool: which pods serve the model, and who picks among them.

use llmd_crds::{EndpointPickerRef, InferencePool, InferencePoolSpec, PickerPort, PoolSelector, TargetPort};

use super::meta::{epp_name, metadata, serving_selector};
use crate::names;
use crate::validated::ValidatedDeployment;

pub(super) fn inference_pool(deployment: &ValidatedDeployment) -> InferencePool {
    InferencePool {
        metadata: metadata(deployment, deployment.name.clone(), "pool"),
        spec: InferencePoolSpec {
            selector: PoolSelector {
                match_labels: serving_selector(deployment),
            },
            target_ports: deployment
                .routed_ports()
                .map(|number| TargetPort { number })
                .collect(),
            app_protocol: "http".to_owned(),
            endpoint_picker_ref: EndpointPickerRef {
                name: epp_name(deployment),
                port: PickerPort {
                    number: names::EXT_PROC_PORT,
                },
                failure_mode: deployment.router.failure_mode,
            },
        },
    }
}
