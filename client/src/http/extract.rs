//! What handlers ask of a request: who calls, and path, query and body as types.

use crate::{Api, http::ApiError};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::PathRejection},
    http::{header, request::Parts},
};
use postern_users::Session;
use postern_web::{ClientAddress, check_object, parse_json};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Who calls: an access token is required.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<Session>);

/// Who calls, if a token was sent; a wrong token is an error all the same.
#[derive(Debug, Clone)]
pub struct MaybeCaller(pub Option<Arc<Session>>);

/// The token of a request: `Authorization: Bearer …`, or (deprecated) `?access_token=`.
fn token(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    form_pairs(parts.uri.query().unwrap_or_default())
        .find(|(key, _)| key == "access_token")
        .map(|(_, value)| value)
}

/// The pairs of a query string, decoded.
pub(crate) fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    serde_html_form::from_str::<Vec<(String, String)>>(query).unwrap_or_default().into_iter()
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        match MaybeCaller::from_request_parts(parts, api).await? {
            MaybeCaller(Some(session)) => Ok(Self(session)),
            MaybeCaller(None) => Err(ApiError::new(
                axum::http::StatusCode::UNAUTHORIZED,
                "M_MISSING_TOKEN",
                "this endpoint needs an access token",
            )),
        }
    }
}

impl FromRequestParts<Api> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Some(token) = token(parts) else { return Ok(Self(None)) };
        let session = api.users.session(&token)?;
        let address = ClientAddress::of(parts).0;
        api.users.seen(&session, (!address.is_empty()).then_some(address))?;
        Ok(Self(Some(session)))
    }
}

/// A JSON body. A body that is not JSON is `M_NOT_JSON`, one that is not a `T` is `M_BAD_JSON`.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read_body(request, api).await?;
        // Clients send nothing where all is optional.
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        check_object(bytes)?;
        parse_json(bytes).map(Self)
    }
}

async fn read_body(request: Request, api: &Api) -> Result<Bytes, ApiError> {
    // What is announced as too large is refused before it comes.
    let length = request.headers().get(header::CONTENT_LENGTH);
    let announced = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > api.config.limits.max_request_body_bytes) {
        return Err(ApiError::too_large("the request is too large"));
    }
    Bytes::from_request(request, api).await.map_err(|rejection| {
        if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::too_large("the request is too large")
        } else {
            ApiError::new(axum::http::StatusCode::BAD_REQUEST, "M_UNKNOWN", "the request broke off")
        }
    })
}

/// The JSON text of a body as it was sent, checked to be an object.
#[derive(Debug, Clone)]
pub struct JsonText(pub Box<serde_json::value::RawValue>);

impl FromRequest<Api> for JsonText {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read_body(request, api).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        check_object(bytes)?;
        parse_json(bytes).map(Self)
    }
}

/// Parameters of the path.
#[derive(Debug, Clone)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(ApiError::invalid_param(error.body_text()))
            }
            Err(error) => Err(ApiError::invalid_param(error.to_string())),
        }
    }
}

/// Parameters of the query.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        serde_html_form::from_str(parts.uri.query().unwrap_or_default())
            .map(Self)
            .map_err(|error| ApiError::invalid_param(error.to_string()))
    }
}
