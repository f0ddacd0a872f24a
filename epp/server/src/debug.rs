//! Debug pages: the pool as the picker sees it, and what plugins hold; for people, `llmd up` and tools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
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

/// Likewise: `/debug/plugins/state` answers an object by `name/type` of each plugin that shows what it
/// holds.
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

async fn plugin_state(State(epp): State<Arc<Epp>>) -> Json<BTreeMap<String, Value>> {
    let state = epp.plugin_state().into_iter();
    Json(state.map(|(name, value)| (name.to_string(), value)).collect())
}
