//! `LLMDeployment`: one served model.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::kv::Kv;
use crate::model::Model;
use crate::pool::Pool;
use crate::router::Router;
use crate::scheduling::Scheduling;
use crate::schema::int_or_string;
use crate::status::LLMDeploymentStatus;

/// One served model: engines in pools behind a router. A field that is unset takes its value from
/// the well-lit path.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "llmd.dev",
    version = "v1alpha1",
    kind = "LLMDeployment",
    plural = "llmdeployments",
    doc = "One served model: engines in pools behind a router.",
    singular = "llmdeployment",
    shortname = "llmd",
    category = "llm-d",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    cel,
    validation = Rule::new("has(self.spec.model)").message("spec.model is required: give it a uri, such as hf://org/name").field_path(".spec.model").reason(Reason::FieldValueRequired),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name: at most 40 characters, because child objects add suffixes"),
    status = "LLMDeploymentStatus",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn = r#"{"name":"Path","type":"string","jsonPath":".status.path.name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Pools","type":"string","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".status.url"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Model","type":"string","jsonPath":".status.model","priority":1}"#,
    printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.accelerators","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LLMDeploymentSpec {
    /// Well-lit path that fills what is unset, such as `optimized-baseline`; `llmd paths` lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub path: Option<String>,
    /// Version of the path, such as `v1`. Unset means the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub path_version: Option<String>,
    /// Multiplies the replicas of every pool; 0 stops the engines and keeps the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: Option<i32>,
    /// Scale all engines to 0 and keep the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<bool>,
    /// What is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// How engines run; a pool may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Groups of equal engines, merged by name with the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pools: Option<Vec<Pool>>,
    /// The KV cache, which is the same in all pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<Kv>,
    /// Endpoint Picker and proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// Where pods may run; a pool may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Access to images, and what engines may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// How engine pods are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Labels and annotations for all objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_metadata: Option<CommonMetadata>,
}

/// Access to images.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    /// Names of Secrets of type `kubernetes.io/dockerconfigjson` in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Option<Vec<String>>,
    /// What the engines' pods may do. Unset: Restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,
}

/// What the engines' pods may do.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum PodSecurity {
    /// The restricted Pod Security standard: no root, no capabilities, a read-only root file system.
    #[default]
    Restricted,
    /// Root with `IPC_LOCK` and `SYS_RAWIO`, which RDMA from GPUs needs. The namespace must allow it.
    Privileged,
}

/// How engine pods are replaced.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(cel, validation = Rule::new("!(has(self.maxSurge) && has(self.maxUnavailable) && string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])").message("maxSurge and maxUnavailable cannot both be 0: no pod could ever be replaced").field_path(".maxUnavailable").reason(Reason::FieldValueInvalid))]
pub struct Rollout {
    /// How pools move to another template. Unset: `RollingUpdate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RolloutStrategy>,
    /// Pods above the wanted number, as a number or a percentage. Needs free accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    pub max_surge: Option<IntOrString>,
    /// Pods below the wanted number, as a number or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    pub max_unavailable: Option<IntOrString>,
    /// Time for requests in flight before a pod is killed, such as `130s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub drain: Option<String>,
}

/// How pools move to another template.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum RolloutStrategy {
    /// Each pool by itself.
    #[default]
    RollingUpdate,
    /// All pools in their ratio: every revision has workloads of its own.
    Coherent,
    /// All pools in their ratio, by the controller of `DisaggregatedSet`s.
    DisaggregatedSet,
}

/// Labels and annotations for all objects.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.labels) || self.labels.all(k, !(k.startsWith('llmd.dev/') || k.startsWith('llm-d.ai/') || k.startsWith('app.kubernetes.io/') || k.startsWith('leaderworkerset.sigs.k8s.io/') || k.startsWith('kubernetes.io/') || k.startsWith('argocd.argoproj.io/') || k.startsWith('kustomize.toolkit.fluxcd.io/') || k.startsWith('helm.toolkit.fluxcd.io/')))").message("labels: this prefix is reserved for the operator, for Kubernetes and for deployment tools, which would adopt the objects; use a prefix of your own").field_path(".labels").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(k, !(k.startsWith('llmd.dev/') || k.startsWith('argocd.argoproj.io/') || k.startsWith('kustomize.toolkit.fluxcd.io/') || k.startsWith('helm.toolkit.fluxcd.io/') || k.startsWith('meta.helm.sh/') || k.startsWith('helm.sh/') || k.startsWith('kubectl.kubernetes.io/') || k.startsWith('kubernetes.io/')))").message("annotations: this prefix belongs to the operator or to a deployment tool, which would adopt the objects").field_path(".annotations").reason(Reason::FieldValueForbidden)
)]
pub struct CommonMetadata {
    /// Added to every object and pod; no reserved prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::string_map::<32, 63>")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Added to every object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::string_map::<32, 4096>")]
    pub annotations: Option<BTreeMap<String, String>>,
}
