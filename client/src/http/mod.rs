//! What all endpoints share: extracting requests, errors, limits.

pub(crate) mod extract;

pub use extract::{Body, Caller, JsonText, MaybeCaller, Params, PeerAddress, Query};
pub use postern_web::{Answer, ApiError, Class, Limiter, Rate, done};
