//! Which server asks (specification: request authentication).
//!
//! [`authenticate`] stands before the endpoints that only servers may use: it reads the request whole, checks its
//! signature with the keys of the server it claims to come from, and notes that server for [`Origin`].

use crate::Federation;
use axum::{
    body::{Body as HttpBody, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use postern_rooms::now_ms;
use postern_web::{ApiError, Strict, check_object, parse_json};
use ruma::{OwnedServerName, api::federation::authentication::XMatrix};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// `Authorization` headers of one request that are looked at.
const HEADERS: usize = 4;

/// The server that asks.
#[derive(Debug, Clone)]
pub struct Origin(pub OwnedServerName);

fn unauthorized(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", why)
}

/// Lets only requests pass that the server they name has signed.
pub(crate) async fn authenticate(
    State(federation): State<Federation>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let claims: Vec<XMatrix> = parts
        .headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .take(HEADERS)
        .filter_map(|value| XMatrix::try_from(value).ok())
        .collect();
    let origin = claims
        .first()
        .map(|claim| claim.origin.clone())
        .ok_or_else(|| unauthorized("the request is not signed by a server"))?;
    let own = federation.0.rooms.server_name();
    if claims.iter().any(|claim| claim.origin != origin) {
        return Err(unauthorized("the request names several servers as its origin"));
    }
    if claims.iter().any(|claim| claim.destination.as_deref().is_some_and(|to| to != own)) {
        return Err(unauthorized("the request is meant for another server"));
    }
    if origin == own {
        return Err(unauthorized("the request claims to come from this server"));
    }
    if !federation.0.peers.allowed(&origin) {
        return Err(ApiError::forbidden("this server does not federate with yours"));
    }
    let limit = federation.0.config.federation.max_request_body_bytes;
    let body = to_bytes(body, limit).await.map_err(|_| ApiError::too_large("the request is too large"))?;
    if !body.is_empty() {
        // What is signed is one reading of the text, so that there must be no other.
        let _: Strict = parse_json(&body)?;
    }
    let ids: BTreeSet<_> = claims.iter().map(|claim| claim.key.clone()).collect();
    let wanted = BTreeMap::from([(origin.clone(), ids)]);
    let keys =
        federation.0.ring.keys(&wanted, Some(now_ms())).await.map_err(|error| ApiError::internal(&error))?;
    if keys.is_empty() {
        return Err(unauthorized(format!("the keys of {origin} cannot be had")));
    }
    let mut signed = http::Request::new(&*body);
    signed.method_mut().clone_from(&parts.method);
    // The path as it was sent: routers may have taken a part of it away.
    let uri = parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0);
    signed.uri_mut().clone_from(uri);
    let proven = claims.iter().any(|claim| claim.verify_http_request(&signed, own, &keys).is_ok());
    if !proven {
        return Err(unauthorized(format!("the signature is not one of {origin}")));
    }
    federation.heard_from(&origin);
    parts.extensions.insert(Origin(origin));
    Ok(next.run(Request::from_parts(parts, HttpBody::from(body))).await)
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let origin = parts.extensions.get::<Self>().cloned();
        origin.ok_or_else(|| unauthorized("this endpoint needs a signed request"))
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

/// Parameters of the query.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        serde_html_form::from_str(parts.uri.query().unwrap_or_default())
            .map(Self)
            .map_err(|error| ApiError::invalid_param(error.to_string()))
    }
}
