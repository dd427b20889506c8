//! What all endpoints share: extracting requests, errors, limits.

mod error;
pub(crate) mod extract;
mod limiter;
mod strict;

pub use error::ApiError;
pub use extract::{Body, Caller, JsonText, MaybeCaller, Params, PeerAddress, Query};
pub use limiter::{Class, Limiter, Rate};

/// The result of a handler.
pub type Answer<T = axum::Json<serde_json::Value>> = Result<T, ApiError>;

/// An empty object: what most writes answer.
pub fn done() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({}))
}
