//! The router: the Endpoint Picker's configuration is checked by the Endpoint Picker's own decoder.

use llmd_crds::{FailureMode, LLMDeploymentSpec, ProxyType, RouterGateway};

use super::engine::seconds;
use super::quantity;
use crate::field_error::{FieldError, Problem};
use crate::validated::{ValidatedGateway, ValidatedProxy, ValidatedRouter};

/// Longest answer through a gateway that the resource does not limit (llm-d-router chart).
const ANSWER_SECONDS: i32 = 300;

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
        let flag = epp
            .flags
            .as_ref()
            .and_then(|flags| flags.get("allow-experimental-plugins"));
        // Go's reading of a switch, and so the Endpoint Picker's
        let allowed =
            flag.is_some_and(|value| matches!(&**value, "1" | "t" | "T" | "true" | "TRUE" | "True"));
        match llmd_epp_core::config::validate_for(&config, allowed) {
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
        proxy: match (router.gateway, proxy.kind.unwrap_or(ProxyType::Envoy)) {
            (Some(gateway), _) => ValidatedProxy::Gateway(front(gateway, errors)),
            (None, ProxyType::Envoy) => ValidatedProxy::Envoy {
                image: proxy.image,
                fail_open: proxy.fail_open.unwrap_or(true),
            },
            (None, ProxyType::Builtin) => ValidatedProxy::Builtin,
        },
    }
}

fn front(gateway: RouterGateway, errors: &mut Vec<FieldError>) -> ValidatedGateway {
    let timeout_seconds = match gateway.timeout.as_deref() {
        None => ANSWER_SECONDS,
        // No limit of ours: the one case in which nothing is allowed.
        Some("0s") => 0,
        Some(text) => seconds("spec.router.gateway.timeout", text, errors),
    };
    ValidatedGateway {
        parents: gateway.parent_refs,
        hostnames: gateway.hostnames.unwrap_or_default(),
        matches: gateway.matches.unwrap_or_default(),
        timeout_seconds,
    }
}
