//! Uploading and downloading files (specification: content repository).

mod download;
mod respond;
#[cfg(test)]
mod tests;
mod upload;

use crate::{
    Api,
    http::{Answer, Caller},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post, put},
};
use serde_json::json;

pub fn routes() -> Router<Api> {
    let mut router = Router::new()
        .route("/_matrix/media/v1/create", post(upload::create))
        .route("/_matrix/client/v1/media/config", get(config))
        .route("/_matrix/client/v1/media/download/{server}/{id}", get(download::download))
        .route("/_matrix/client/v1/media/download/{server}/{id}/{name}", get(download::download_named))
        .route("/_matrix/client/v1/media/thumbnail/{server}/{id}", get(download::thumbnail));
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/media/{version}");
        router = router
            .route(&format!("{base}/upload"), post(upload::upload))
            .route(&format!("{base}/upload/{{server}}/{{id}}"), put(upload::upload_to))
            .route(&format!("{base}/config"), get(config))
            .route(&format!("{base}/download/{{server}}/{{id}}"), get(download::open_download))
            .route(&format!("{base}/download/{{server}}/{{id}}/{{name}}"), get(download::open_download_named))
            .route(&format!("{base}/thumbnail/{{server}}/{{id}}"), get(download::open_thumbnail));
    }
    router
}

async fn config(State(api): State<Api>, _: Caller) -> Answer {
    Ok(Json(json!({ "m.upload.size": api.config.media.max_upload_bytes })))
}
