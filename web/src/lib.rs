//! What the APIs over HTTP share: Matrix errors, JSON that means one thing only, rate limits.

mod address;
mod elsewhere;
mod error;
mod limiter;
mod strict;

pub use address::{ClientAddress, PeerAddress, PeerKey};
pub use elsewhere::{Elsewhere, Nowhere, Pending};
pub use error::ApiError;
pub use limiter::{Class, Limiter, Rate};
pub use strict::{Strict, check_object, parse_json};

/// The result of a handler.
pub type Answer<T = axum::Json<serde_json::Value>> = Result<T, ApiError>;

/// An empty object: what most writes answer.
pub fn done() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({}))
}
