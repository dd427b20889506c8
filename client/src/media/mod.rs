//! Uploading and downloading files (specification: content repository).

mod download;
mod respond;
#[cfg(test)]
mod tests;
mod upload;

use crate::{
    Api,
    http::{Answer, ApiError, Caller},
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post, put},
};
use postern_media::Error;
use serde_json::json;

/// When to try again to make an id to upload to, while too many wait: by then the user may have used one, milliseconds.
const PENDING_RETRY_MS: u64 = 60_000;

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

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound => Self::not_found(text),
            Error::NotYetUploaded => Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", text),
            Error::CannotOverwrite => Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", text),
            Error::NotYours => Self::forbidden(text),
            Error::TooLarge(_) | Error::ImageTooLarge(_) => Self::too_large(text),
            Error::TooManyPending => Self::limit_exceeded(PENDING_RETRY_MS),
            Error::NoThumbnail(_) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", text),
            Error::InvalidParam(_) => Self::invalid_param(text),
            Error::Internal(_) | Error::Graph(_) => Self::internal(&text),
        }
    }
}

async fn config(State(api): State<Api>, _: Caller) -> Answer {
    Ok(Json(json!({ "m.upload.size": api.config.media.max_upload_bytes })))
}
