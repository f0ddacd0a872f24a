//! `GET /debug/endpoints`: the pool as the picker sees it, for people, `llmd up` and tools.

use std::time::Instant;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use crate::datalayer::{DataLayer, EndpointStatus};

/// The route, to be mounted on the admin server. Answers `{"endpoints": [...]}` ordered by name;
/// the fields are those of [`EndpointStatus`].
pub fn router(layer: DataLayer) -> Router {
    Router::new()
        .route("/debug/endpoints", get(endpoints))
        .with_state(layer)
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
