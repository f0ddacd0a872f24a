//! Debug pages: the pool as the picker sees it, and what plugins hold; for people, `llmd up` and tools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::jiff::Timestamp;
use llmd_epp_core::Epp;
use serde_json::Value;

use crate::datalayer::{DataLayer, EndpointStatus};

/// To be mounted on the admin server: `/debug/endpoints` answers `{"endpoints": [...]}` ordered by
/// name, with the fields of [`EndpointStatus`].
pub fn router(layer: DataLayer) -> Router {
    Router::new()
        .route("/debug/endpoints", get(endpoints))
        .with_state(layer)
}

/// Likewise: `/debug/plugins/state` answers what each plugin holds, in upstream's form: `{timestamp, plugins: {name:
/// {name, type, state}}}`, with a `message` in place of the state of one that does not show it.
pub fn plugins(epp: Arc<Epp>) -> Router {
    Router::new()
        .route("/debug/plugins/state", get(plugin_state))
        .with_state(epp)
}

#[derive(serde::Serialize)]
struct Endpoints {
    endpoints: Vec<EndpointStatus>,
}

async fn endpoints(State(layer): State<DataLayer>) -> Json<Endpoints> {
    Json(Endpoints {
        endpoints: layer.status(Instant::now()),
    })
}

#[derive(serde::Serialize)]
struct Plugins {
    /// RFC 3339.
    timestamp: String,
    plugins: BTreeMap<Arc<str>, Shown>,
}

#[derive(serde::Serialize)]
struct Shown {
    name: Arc<str>,
    #[serde(rename = "type")]
    plugin_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// Upstream's text.
const NOT_SHOWN: &str = "plugin does not support state collection";

async fn plugin_state(State(epp): State<Arc<Epp>>) -> Json<Plugins> {
    let shown = epp.plugin_state().into_iter().map(|(name, state)| {
        let shown = Shown {
            name: Arc::clone(&name.name),
            plugin_type: name.plugin_type,
            message: state.is_none().then_some(NOT_SHOWN),
            state,
        };
        (name.name, shown)
    });
    Json(Plugins {
        timestamp: Timestamp::now().to_string(),
        plugins: shown.collect(),
    })
}
