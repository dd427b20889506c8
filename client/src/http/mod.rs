//! What all endpoints share: extracting requests, errors, limits.

pub(crate) mod extract;

pub use extract::{Body, Caller, JsonText, MaybeCaller, Params, Query};
pub use postern_web::{Answer, ApiError, Class, ClientAddress, Limiter, Rate, done};
