//! Health for orchestrators: whether the process works, and whether it should get requests.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use postern_graph::Graph;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Health {
    graph: Arc<Graph>,
    stopping: CancellationToken,
}

/// `/_postern/health/live` and `/_postern/health/ready`.
pub fn routes(graph: Arc<Graph>, stopping: CancellationToken) -> Router {
    Router::new()
        .route("/_postern/health/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/_postern/health/ready", get(ready))
        .with_state(Health { graph, stopping })
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    let status = if health.stopping.is_cancelled() {
        "stopping"
    } else if health.graph.has_failed() {
        "the database takes no more writes"
    } else {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": status })))
}
