//! Who asks, and what.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use postern_web::{ApiError, check_object, parse_json};
use ruma::OwnedServerName;
use serde::de::DeserializeOwned;

/// The server that asks.
#[derive(Debug, Clone)]
pub struct Origin(pub OwnedServerName);

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let origin = parts.extensions.get::<Self>().cloned();
        origin.ok_or_else(|| {
            ApiError::new(
                axum::http::StatusCode::UNAUTHORIZED,
                "M_UNAUTHORIZED",
                "this endpoint needs a signed request",
            )
        })
    }
}

/// A JSON body.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| ApiError::too_large("the request is too large or broke off"))?;
        check_object(&bytes)?;
        parse_json(&bytes).map(Self)
    }
}
