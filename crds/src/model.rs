//! What is served, and how its weights are reached.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The served model.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.uri) || has(self.name)").message("give a uri (hf://org/name or pvc://claim/path) or, for the simulator, a name").field_path(".uri").reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.uri) || self.uri.matches('^(hf://[^/]+/[^/]+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+)$')").message("uri must be hf://org/name or pvc://claim/path").field_path(".uri").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.revision) || !has(self.uri) || self.uri.startsWith('hf://')").message("a revision belongs to a hf:// model; a claim holds one revision").field_path(".revision").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.storage) || !has(self.uri) || self.uri.startsWith('hf://')").message("storage: keeps downloads of a hf:// model; a pvc:// model is read where it is").field_path(".storage").reason(Reason::FieldValueForbidden)
)]
pub struct Model {
    /// Where the weights are: `hf://org/name` or `pvc://claim/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub uri: Option<String>,
    /// Name that clients send; from the uri when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Further names that clients may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub aliases: Option<Vec<String>>,
    /// Commit, tag or branch of a `hf://` model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub revision: Option<String>,
    /// Secret with the access token of a gated model; only referenced, never read by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// Let the engine run Python code that comes with the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_remote_code: Option<bool>,
    /// Where a `hf://` model is kept, so that a new pod does not download it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ModelStorage>,
}

/// A PersistentVolumeClaim in the same namespace that keeps downloads.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelStorage {
    /// Name of the claim; all engines share it, so more than one node needs `ReadWriteMany` or `readOnly`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub claim_name: String,
    /// Engines only read what somebody else has downloaded, and ask no hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A key of a Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it; `HF_TOKEN` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}
