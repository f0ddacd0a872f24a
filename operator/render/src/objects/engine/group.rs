//! Engines of several pods: groups of a LeaderWorkerSet.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use llmd_crds::{GroupRolling, GroupRollout, LeaderWorkerSetSpec, LeaderWorkerTemplate};

use super::stages;
use crate::validated::{ValidatedDeployment, ValidatedPool};

/// Where ranks are spread, every pod of a group is equal and serves with its own; where layers are, the leader serves.
pub(super) fn spec(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    template: PodTemplateSpec,
) -> LeaderWorkerSetSpec {
    let (leader_template, worker_template) = if pool.parallelism.stages() > 1 {
        (Some(template.clone()), stages::worker(template, pool.engine.kind))
    } else {
        (None, template)
    };
    LeaderWorkerSetSpec {
        replicas: pool.replicas,
        leader_worker_template: LeaderWorkerTemplate {
            size: pool.parallelism.nodes(),
            leader_template,
            worker_template,
            // a rank that is gone leaves the others of its group waiting for it
            restart_policy: "RecreateGroupOnPodRestart".to_owned(),
        },
        rollout_strategy: GroupRollout {
            kind: "RollingUpdate".to_owned(),
            rolling_update_configuration: GroupRolling {
                max_unavailable: deployment.rollout.max_unavailable.clone(),
                max_surge: deployment.rollout.max_surge.clone(),
            },
        },
        startup_policy: "LeaderCreated".to_owned(),
    }
}
