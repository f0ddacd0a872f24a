//! The parameters as they are written, and what is wrong with them.

use llmd_epp_api::BuildError;
use serde::Deserialize;

use super::selector::Selector;
use super::shares::{Gate, Weight};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Parameters {
    scope: Scope,
    header_selectors: Vec<HeaderSelector>,
    revision_gating: Option<RevisionGating>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Scope {
    label_selector: String,
}

/// A header and the label that it goes with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeaderSelector {
    /// Label of the count of requests that match nothing.
    pub(super) name: String,
    /// Lower case, once it is checked.
    pub(super) header_name: String,
    pub(super) label_key: String,
    mode: SelectorMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SelectorMode {
    Strict,
    Prefer,
}

impl HeaderSelector {
    /// Endpoints with another value are taken out.
    pub(super) fn is_strict(&self) -> bool {
        self.mode == SelectorMode::Strict
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RevisionGating {
    mode: GatingMode,
    #[serde(default)]
    require_roles: Roles,
    #[serde(default = "revision_key")]
    revision_label_key: String,
    #[serde(default = "role_key")]
    role_label_key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum GatingMode {
    Sum,
    MaxRole,
    Disabled,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Roles {
    values: Vec<String>,
}

fn revision_key() -> String {
    "disaggregatedset.x-k8s.io/revision".to_owned()
}

fn role_key() -> String {
    "disaggregatedset.x-k8s.io/role".to_owned()
}

/// What the parameters ask for.
pub(super) struct Checked {
    pub(super) scope: Selector,
    pub(super) selectors: Vec<HeaderSelector>,
    /// `None` when revisions are not looked at.
    pub(super) gate: Option<Gate>,
}

impl Parameters {
    pub(super) fn check(self) -> Result<Checked, BuildError> {
        let Self {
            scope,
            mut header_selectors,
            revision_gating,
        } = self;
        let required = |field: &str, value: &str| match value.trim() {
            "" => Err(BuildError::value(field, "must not be empty")),
            _ => Ok(()),
        };
        required("scope.labelSelector", &scope.label_selector)?;
        let scope = Selector::parse(&scope.label_selector)
            .map_err(|reason| BuildError::value("scope.labelSelector", reason))?;
        for (index, selector) in header_selectors.iter_mut().enumerate() {
            let field = |name: &str| format!("headerSelectors[{index}].{name}");
            required(&field("name"), &selector.name)?;
            required(&field("headerName"), &selector.header_name)?;
            required(&field("labelKey"), &selector.label_key)?;
            selector.header_name = selector.header_name.trim().to_ascii_lowercase();
        }
        let gating = revision_gating.ok_or_else(|| {
            BuildError::value("revisionGating", "is required; mode is sum, max-role or disabled")
        })?;
        let weight = match gating.mode {
            GatingMode::Sum => Some(Weight::Sum),
            GatingMode::MaxRole => Some(Weight::MaxRole),
            GatingMode::Disabled => None,
        };
        let roles = gating.require_roles.values;
        if weight.is_some() && (roles.is_empty() || roles.iter().any(String::is_empty)) {
            let reason = "must name at least one role, none of them empty, unless mode is disabled";
            return Err(BuildError::value("revisionGating.requireRoles.values", reason));
        }
        required("revisionGating.revisionLabelKey", &gating.revision_label_key)?;
        required("revisionGating.roleLabelKey", &gating.role_label_key)?;
        Ok(Checked {
            scope,
            selectors: header_selectors,
            gate: weight.map(|weight| Gate {
                weight,
                roles,
                revision_key: gating.revision_label_key,
                role_key: gating.role_label_key,
            }),
        })
    }
}
