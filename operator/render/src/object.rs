//! Rendered objects: typed, ordered, and printed the same way every time.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use llmd_crds::{DisaggregatedSet, HTTPRoute, InferencePool, LeaderWorkerSet, ResourceClaimTemplate};
use serde::Serialize;
use serde_json::Value;

/// One object for the API server.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the Kubernetes kind of its name")]
pub enum Object {
    ServiceAccount(ServiceAccount),
    Role(Role),
    RoleBinding(RoleBinding),
    ConfigMap(ConfigMap),
    Service(Box<Service>),
    NetworkPolicy(Box<NetworkPolicy>),
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    ResourceClaimTemplate(Box<ResourceClaimTemplate>),
    Deployment(Box<Deployment>),
    LeaderWorkerSet(Box<LeaderWorkerSet>),
    DisaggregatedSet(Box<DisaggregatedSet>),
    InferencePool(Box<InferencePool>),
    HTTPRoute(Box<HTTPRoute>),
}

impl Object {
    /// `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServiceAccount(_) => ServiceAccount::KIND,
            Self::Role(_) => Role::KIND,
            Self::RoleBinding(_) => RoleBinding::KIND,
            Self::ConfigMap(_) => ConfigMap::KIND,
            Self::Service(_) => Service::KIND,
            Self::NetworkPolicy(_) => NetworkPolicy::KIND,
            Self::PodDisruptionBudget(_) => PodDisruptionBudget::KIND,
            Self::ResourceClaimTemplate(_) => ResourceClaimTemplate::KIND,
            Self::Deployment(_) => Deployment::KIND,
            Self::LeaderWorkerSet(_) => LeaderWorkerSet::KIND,
            Self::DisaggregatedSet(_) => DisaggregatedSet::KIND,
            Self::InferencePool(_) => InferencePool::KIND,
            Self::HTTPRoute(_) => HTTPRoute::KIND,
        }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// What the engines of this workload share with those of other roles, by label.
    pub fn revision(&self) -> Option<&str> {
        let labels = match self {
            Self::DisaggregatedSet(object) => &object.spec.roles.first()?.metadata.labels,
            _ => self.metadata().labels.as_ref()?,
        };
        labels.get(crate::names::REVISION).map(String::as_str)
    }

    /// The pool whose engines this workload runs.
    pub fn pool(&self) -> Option<&str> {
        let is_workload = matches!(self, Self::Deployment(_) | Self::LeaderWorkerSet(_));
        let labels = self.metadata().labels.as_ref().filter(|_| is_workload)?;
        labels.get(crate::names::POOL).map(String::as_str)
    }

    /// Changes how many engines a workload has; other kinds have none.
    pub fn set_replicas(&mut self, replicas: i32) {
        match self {
            Self::Deployment(object) => object.spec.get_or_insert_default().replicas = Some(replicas),
            Self::LeaderWorkerSet(object) => object.spec.replicas = replicas,
            _ => {}
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ServiceAccount(object) => &object.metadata,
            Self::Role(object) => &object.metadata,
            Self::RoleBinding(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
            Self::ResourceClaimTemplate(object) => &object.metadata,
            Self::Deployment(object) => &object.metadata,
            Self::LeaderWorkerSet(object) => &object.metadata,
            Self::DisaggregatedSet(object) => &object.metadata,
            Self::InferencePool(object) => &object.metadata,
            Self::HTTPRoute(object) => &object.metadata,
        }
    }

    /// The object as the API server takes it: `apiVersion` and `kind` first.
    pub fn to_value(&self) -> Value {
        match self {
            // k8s-openapi writes apiVersion and kind itself.
            Self::ServiceAccount(object) => value(object),
            Self::Role(object) => value(object),
            Self::RoleBinding(object) => value(object),
            Self::ConfigMap(object) => value(object),
            Self::Service(object) => value(object),
            Self::NetworkPolicy(object) => value(object),
            Self::PodDisruptionBudget(object) => value(object),
            Self::ResourceClaimTemplate(object) => foreign(
                ResourceClaimTemplate::API_VERSION,
                ResourceClaimTemplate::KIND,
                object,
            ),
            Self::Deployment(object) => value(object),
            Self::LeaderWorkerSet(object) => {
                foreign(LeaderWorkerSet::API_VERSION, LeaderWorkerSet::KIND, object)
            }
            Self::DisaggregatedSet(object) => {
                foreign(DisaggregatedSet::API_VERSION, DisaggregatedSet::KIND, object)
            }
            Self::InferencePool(object) => foreign(InferencePool::API_VERSION, InferencePool::KIND, object),
            Self::HTTPRoute(object) => foreign(HTTPRoute::API_VERSION, HTTPRoute::KIND, object),
        }
    }
}

/// Our own types of foreign kinds do not write these two themselves.
fn foreign(api_version: &str, kind: &str, object: &impl Serialize) -> Value {
    let mut whole = serde_json::Map::new();
    whole.insert("apiVersion".to_owned(), api_version.into());
    whole.insert("kind".to_owned(), kind.into());
    if let Value::Object(members) = value(object) {
        whole.extend(members);
    }
    Value::Object(whole)
}

fn value(object: &impl Serialize) -> Value {
    // The types hold only strings, numbers, booleans and maps with string keys.
    serde_json::to_value(object).unwrap_or(Value::Null)
}

/// Objects in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The objects.
    pub objects: Vec<Object>,
}

impl Rendered {
    /// One YAML text, a document each.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        for object in &self.objects {
            text.push_str("---\n");
            text.push_str(&serde_yaml::to_string(&object.to_value()).unwrap_or_default());
        }
        text
    }

    /// A `List` for `kubectl apply`.
    pub fn to_list(&self) -> Value {
        let items: Vec<Value> = self.objects.iter().map(Object::to_value).collect();
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
    }
}
