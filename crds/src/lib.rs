//! Types of our custom resources, and subset types of the foreign kinds that we write.
//!
//! Takes in: nothing; types with serde, schemars and CEL rules.
//! Holds: `LLMDeployment`, `WellLitPath`, `AcceleratorProfile` (`llmd.dev/v1alpha1`), `InferencePool`,
//! `LeaderWorkerSet` and other kinds that are not ours.
//! Gives out: the CustomResourceDefinitions as one byte-stable YAML text ([`yaml`]).
//!
//! ```text
//!  Rust types ──schemars──▶ JSON schema ──structural clean-up──▶ CRD YAML ──▶ chart, `llmd crds print`
//!       └──kube-cel──▶ the same rules, checked without a cluster
//! ```
//!
//! A schema holds only fields that change what is rendered. It has no defaults: a default would be
//! stored by the API server and hide that a field is unset, so that a later path version had no effect.

// The derive repeats each struct inside a function, where its `pub` reaches nobody.
#![allow(unreachable_pub)]

mod accelerator_profile;
mod definitions;
mod deployment;
mod disaggregated_set;
mod engine;
mod env;
pub mod foreign;
mod gateway;
mod http_route;
mod inference_model_rewrite;
mod inference_objective;
mod inference_pool;
mod kv;
mod leader_worker_set;
mod model;
mod pool;
mod resource_claim_template;
mod router;
mod rules;
mod scheduling;
mod schema;
mod status;
mod well_lit_path;

pub use accelerator_profile::{AcceleratorProfile, AcceleratorProfileSpec};
pub use definitions::{all, yaml};
pub use deployment::{
    CommonMetadata, LLMDeployment, LLMDeploymentSpec, PodSecurity, Rollout, RolloutStrategy, Security,
};
pub use disaggregated_set::{DisaggregatedRole, DisaggregatedSet, DisaggregatedSetSpec, RoleMetadata};
pub use engine::{Engine, EngineType, ImagePullPolicy};
pub use env::{EnvVar, EnvVarSource, FieldRef, KeyRef};
pub use gateway::{GatewayMatch, GatewayRef, RouterGateway};
pub use http_route::{
    BackendRef, HTTPRoute, HTTPRouteMatch, HTTPRouteRule, HTTPRouteSpec, HTTPRouteTimeouts, HeaderMatch,
    PathMatch,
};
pub use inference_model_rewrite::{
    InferenceModelRewrite, InferenceModelRewriteSpec, ModelMatch, ModelNameMatch, ModelRewriteRule,
    TargetModel,
};
pub use inference_objective::{
    InferenceObjective, InferenceObjectiveSpec, PoolRef, TRAFFIC_GROUPS, TRAFFIC_VERSION,
};
pub use inference_pool::{
    EndpointPickerRef, InferencePool, InferencePoolSpec, PickerPort, PoolSelector, TargetPort,
};
pub use kv::{
    Kv, KvBackend, KvFailurePolicy, KvFilesystem, KvMooncake, KvNetwork, KvOffload, KvOffloadConnector,
    KvTransfer, MooncakeProtocol,
};
pub use leader_worker_set::{
    GroupRolling, GroupRollout, LeaderWorkerSet, LeaderWorkerSetSpec, LeaderWorkerSetStatus,
    LeaderWorkerTemplate,
};
pub use model::{Model, ModelStorage, SecretKeyRef};
pub use pool::{Accelerator, LoadBalancing, Parallelism, Pool, Resources, Role, Vendor};
pub use resource_claim_template::{
    DeviceClaim, DeviceConstraint, DeviceRequest, ExactDeviceRequest, ResourceClaimSpec,
    ResourceClaimTemplate, ResourceClaimTemplateSpec,
};
pub use router::{Epp, EppConfig, FailureMode, Proxy, ProxyType, Router, RouterMode};
pub use rules::broken_rules;
pub use scheduling::{Scheduling, Toleration, TolerationEffect, TolerationOperator};
pub use status::{LLMDeploymentStatus, PathStatus, PoolStatus, RouterStatus, UsageStatus};
pub use well_lit_path::{WellLitPath, WellLitPathSpec};

/// API group of our kinds.
pub const GROUP: &str = "llmd.dev";
/// Served version of our kinds.
pub const VERSION: &str = "v1alpha1";
