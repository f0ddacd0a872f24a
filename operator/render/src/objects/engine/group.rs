//! Engines of several pods: groups of a LeaderWorkerSet.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use llmd_crds::{GroupRolling, GroupRollout, LeaderWorkerSetSpec, LeaderWorkerTemplate};

use crate::validated::{ValidatedDeployment, ValidatedPool};

/// Every pod of a group is equal, the leader too: each serves with its own ranks.
pub(super) fn spec(
    deployment: &ValidatedDeployment,
    pool: &ValidatedPool,
    template: PodTemplateSpec,
) -> LeaderWorkerSetSpec {
    LeaderWorkerSetSpec {
        replicas: pool.replicas,
        leader_worker_template: LeaderWorkerTemplate {
            size: pool.parallelism.nodes(),
            worker_template: template,
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
