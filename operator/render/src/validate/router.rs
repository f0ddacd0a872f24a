//! The router: the Endpoint Picker's configuration is checked by the Endpoint Picker's own decoder.

use llmd_crds::{FailureMode, LLMDeploymentSpec, ProxyType};

use super::quantity;
use crate::field_error::{FieldError, Problem};
use crate::validated::{ValidatedProxy, ValidatedRouter};

pub(crate) fn resolve(
    merged: &LLMDeploymentSpec,
    errors: &mut Vec<FieldError>,
    notes: &mut Vec<String>,
) -> ValidatedRouter {
    let router = merged.router.clone().unwrap_or_default();
    let epp = router.epp.unwrap_or_default();
    let resources = epp.resources.unwrap_or_default();
    let (requests, limits) = (
        resources.requests.unwrap_or_default(),
        resources.limits.unwrap_or_default(),
    );
    quantity::check("spec.router.epp.resources", &requests, &limits, errors);
    let field = "spec.router.epp.config.inline";
    let config = match epp.config.map(|config| serde_yaml::to_string(&config.inline)) {
        Some(Ok(text)) => text,
        Some(Err(error)) => {
            errors.push(FieldError::new(field, Problem::Invalid, error.to_string()));
            String::new()
        }
        None => {
            errors.push(FieldError::new(
                field,
                Problem::Required,
                "neither the path nor the resource gives one",
            ));
            String::new()
        }
    };
    if !config.is_empty() {
        match llmd_epp_core::config::validate(&config) {
            Ok(warnings) => notes.extend(warnings.into_iter().map(|warning| format!("{field}: {warning}"))),
            Err(error) => errors.push(FieldError::new(field, Problem::Invalid, error.to_string())),
        }
    }
    let proxy = router.proxy.unwrap_or_default();
    ValidatedRouter {
        image: epp.image,
        requests,
        limits,
        flags: epp.flags.unwrap_or_default(),
        config,
        failure_mode: router.failure_mode.unwrap_or(FailureMode::FailOpen),
        proxy: match proxy.kind.unwrap_or(ProxyType::Envoy) {
            ProxyType::Envoy => ValidatedProxy::Envoy {
                image: proxy.image,
                fail_open: proxy.fail_open.unwrap_or(true),
            },
            ProxyType::Builtin => ValidatedProxy::Builtin,
        },
    }
}
